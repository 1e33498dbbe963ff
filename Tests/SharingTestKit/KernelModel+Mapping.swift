import FrameStore
internal import GuestMemory
import LinuxHost

import Sharing

// Looking at pages and replacing mappings.
extension KernelModel {
    func inspect(_ page: Int) -> PageContent {
        step("look", allowedInWindow: false)
        let content = touch(page)
        remember(page)
        if content.isZero { return .zero }
        if content.first == content.second { return .uniform(content.first) }
        return .other(content.hash(isConstant: options.constantHash))
    }

    func hash(_ page: Int) -> ContentHash {
        step("hash", allowedInWindow: false)
        return touch(page).hash(isConstant: options.constantHash)
    }

    func stage(_ page: Int, slot: Int) {
        step("stage", allowedInWindow: false)
        staging[slot] = touch(page)
    }

    var viewLimit: Int { copyLimit }

    func view(_ first: FrameLocation, count: Int) -> Bool {
        step("fetch", allowedInWindow: false)
        guard let backingStore, viewed.count + count <= viewLimit else { return false }
        for offset in 0..<count {
            let frame = first.advanced(by: offset)
            viewed[frame] = backingStore.frames[frame] ?? .zero
        }
        return true
    }

    func endView() { viewed = [:] }

    func equals(_ page: Int, _ frame: FrameLocation) -> Bool {
        step("compare", allowedInWindow: true)
        checkWindow(page, "compared")
        if sabotage == .noCompare { return true }
        return visible(page) == viewed[frame]
    }

    func isZero(_ page: Int) -> Bool {
        step("compare with zero", allowedInWindow: true)
        checkWindow(page, "compared")
        return sabotage == .noCompare || touch(page).isZero
    }

    /// With sabotage that takes protection away, only what it leads to shall count.
    private func checkWindow(_ page: Int, _ what: String) {
        if sabotage == .noProtection || pauses > 0 || isProtected[page] { return }
        world.violated("\(name): page \(page) \(what) outside a window")
    }

    private func fail(_ pages: Range<Int>) throws(MappingFailure) {
        let error = LinuxError(operation: "mmap", code: 12)
        replacements += 1
        if replacements == failingReplacement { mapFault = failsWith }
        switch mapFault {
        case .none: return
        case .unchanged:
            mapFault = .none
            throw .unchanged(error)
        case .wentHome:
            mapFault = .none
            for page in pages {
                home[page] = HostPage(visible(page))
                copies[page] = nil
                (backing[page], isTouched[page]) = (.home, false)
                (isRegistered[page], isProtected[page]) = (false, false)
            }
            check("after home took the place of a mapping")
            throw .wentHome(pages, error)
        case .destroyed:
            mapFault = .none
            isDestroyed = true
            blocked = []
            throw .destroyed(error)
        }
    }

    /// - Parameter isMoved: the mapping was put together elsewhere: its private pages are none of its neighbours'.
    private func replace(
        _ pages: Range<Int>, _ backing: (Int) -> Backing, keeping: Set<Int> = [], isMoved: Bool = false
    ) {
        cuts.subtract(pages)
        if isMoved { cuts.insert(pages.lowerBound) }
        if isMoved || !keeping.isEmpty { cuts.insert(pages.upperBound) }
        for page in pages {
            checkWindow(page, "replaced")
            let kept = visible(page)
            copies[page] =
                keeping.contains(page)
                ? HostPage(sabotage == .keptFromOldRecords ? remembered(page) : kept) : nil
            self.backing[page] = backing(page)
            isTouched[page] = false
            isRegistered[page] = false
            isProtected[page] = false
        }
        check("after a mapping was replaced")
    }

    private func frame(_ page: Int, _ pages: Range<Int>, _ location: FrameLocation) -> Backing {
        guard let backingStore else { return .home }
        storeOf[ObjectIdentifier(backingStore)] = backingStore
        return .frame(ObjectIdentifier(backingStore), location.advanced(by: page - pages.lowerBound))
    }

    func mapFrames(_ pages: Range<Int>, _ location: FrameLocation) throws(MappingFailure) {
        step("remap", allowedInWindow: true)
        try fail(pages)
        replace(pages, { frame($0, pages, location) })
    }

    func mapFrames(_ pages: Range<Int>, _ location: FrameLocation, keeping: [Int]) throws(MappingFailure)
        -> Bool
    {
        step("remap, keeping", allowedInWindow: true)
        if options.cannotKeep { return false }
        try fail(pages)
        if sabotage == .keepInTwoSteps {
            let contents = keeping.map(visible)
            replace(pages, { frame($0, pages, location) })
            hook("between two steps")
            for (page, content) in zip(keeping, contents) { copies[page] = HostPage(content) }
            return true
        }
        replace(pages, { frame($0, pages, location) }, keeping: Set(keeping), isMoved: true)
        return true
    }

    func mapZero(_ pages: Range<Int>) throws(MappingFailure) {
        step("remap to zero", allowedInWindow: true)
        try fail(pages)
        replace(pages, { _ in .zero })
    }

    func mapHome(_ pages: Range<Int>) throws(MappingFailure) {
        step("go home", allowedInWindow: true)
        if pauses == 0 { world.violated("\(name): pages go home while writers run") }
        // There is no other place that it could go to.
        if mapFault == .wentHome { mapFault = .unchanged }
        try fail(pages)
        for page in pages {
            if backing[page] == .home { world.violated("\(name): page \(page) is home already") }
            let content = visible(page)
            if !options.punchesFail { home[page] = nil }
            if !content.isZero || options.punchesFail {
                let target = home[page] ?? HostPage(content)
                target.content = content
                home[page] = target
            }
            copies[page] = nil
            backing[page] = .home
            isTouched[page] = false
            isRegistered[page] = false
        }
        check("after pages went home")
    }

    func firstMemoryAtHome(_ pages: Range<Int>) -> Range<Int>? {
        guard let first = pages.first(where: { home[$0] != nil }) else { return nil }
        return first..<(pages[first...].first { home[$0] == nil } ?? pages.upperBound)
    }

    func punchHome(_ pages: Range<Int>) {
        step("punch", allowedInWindow: false)
        for page in pages {
            if backing[page] == .home { world.violated("\(name): visible page \(page) of home was punched") }
            if !options.punchesFail { home[page] = nil }
        }
        check("after a punch")
    }

    func arePrivate(_ pages: Range<Int>) -> [Bool] {
        step("prove", allowedInWindow: false)
        return pages.map { isPrivate(pageMapEntry($0)) }
    }

    /// What /proc/PID/pagemap says, its two deceptive looks included.
    private func pageMapEntry(_ page: Int) -> UInt64 {
        let (present, swapped, file, exclusive, marked) =
            (1 << 63, 1 << 62, 1 << 61, 1 << 56, 1 << 57)
            as (
                UInt64, UInt64, UInt64, UInt64, UInt64
            )
        if copies[page] != nil { return page % 3 == 0 ? swapped : present | exclusive }
        switch backing[page] {
        case .zero: return isTouched[page] ? present : 0
        case .home: return home[page] == nil ? 0 : present | file | exclusive
        case .frame: return isTouched[page] ? present | file : isProtected[page] ? swapped | marked : 0
        }
    }
}

// Arranging mappings anew.
extension KernelModel {
    func rearrange(
        _ pages: Range<Int>, _ target: PageBacking, keeping: inout [Bool]
    ) throws(MappingFailure) -> Bool {
        step("rearrange", allowedInWindow: true)
        if pauses == 0 { world.violated("\(name): pages are rearranged while writers run") }
        for (offset, page) in pages.enumerated() {
            if sabotage != .writtenPagesAreDropped, copies[page] != nil { keeping[offset] = true }
            if inFlight.count(page) > 0 { world.violated("\(name): page \(page) moved under a transfer") }
        }
        if keeping.count(where: { $0 }) > copyLimit { return false }
        try fail(pages)
        let kept = Set(zip(pages, keeping).filter { $0.1 }.map { $0.0 })
        if case .frame(let location) = target {
            replace(pages, { frame($0, pages, location) }, keeping: kept)
        } else {
            replace(pages, { _ in .zero }, keeping: kept)
            for page in kept where copies[page]?.content.isZero == true { copies[page] = nil }
        }
        return true
    }
}
