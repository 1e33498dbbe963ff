public import FrameStore
public import GuestMemory

/// Tells for each page why it is shared or not: of what the engine knows and, for pages that the store counts, of its answers.
/// Nothing is changed. Asked between passes.
struct Explainer {
    private let pages: GuestPages
    private let tracker: DirtyTracker
    private let inFlight: InFlightCounts
    private let link: StoreLink

    init(_ pages: GuestPages, _ tracker: DirtyTracker, _ inFlight: InFlightCounts, _ link: StoreLink) {
        (self.pages, self.tracker, self.inFlight, self.link) = (pages, tracker, inFlight, link)
    }

    /// Of every page, in order.
    func all() -> [PageSharingReason] {
        var found = [PageSharingReason](repeating: .hole, count: pages.count)
        var asked: [ClientPage] = []
        func settle() {
            let answers = link.explain(asked)?.sharing
            for (index, page) in asked.enumerated() { found[Int(page)] = reason(Int(page), answers?[index]) }
            asked.removeAll(keepingCapacity: true)
        }
        for page in 0..<pages.count {
            if needsStore(page) {
                asked.append(ClientPage(page))
                if asked.count == link.questionLimit { settle() }
            } else {
                found[page] = reason(page, nil)
            }
        }
        settle()
        return found
    }

    /// One page, with whom it shares.
    func page(_ page: Int) -> PageExplanation {
        let backing = pages.backing(page)
        guard needsStore(page), let reply = link.explain([ClientPage(page)]), let answer = reply.sharing.first
        else { return PageExplanation(reason: reason(page, nil), backing: backing, mappers: 0, others: []) }
        let mappers =
            switch answer {
            case .nothing, .sighted: 0
            case .frame(let count), .uniform(let count): Int(count)
            }
        return PageExplanation(
            reason: reason(page, answer), backing: backing, mappers: mappers, others: reply.companions)
    }

    private func needsStore(_ page: Int) -> Bool { inFlight.count(page) == 0 && pages.isKnown(page) }

    private func reason(_ page: Int, _ answer: PageSharing?) -> PageSharingReason {
        if inFlight.count(page) > 0 { return .device }
        switch pages.kind(page) {
        case .untouched: return .hole
        case .zero: return .zero
        case .mapped:
            switch answer {
            case .frame(let mappers)?, .uniform(let mappers)?: return mappers > 1 ? .shared : .singleMapper
            case .nothing?, .sighted?, nil: return .storeLost
            }
        case .home, .unshared: break
        }
        if pages.isGivenUp(page) { return .givenUp }
        if tracker.isPostponed(page) { return .putOff }
        if answer == .sighted { return .unique }
        if tracker.isWatched(page) || answer != nil { return .unseen }
        return tracker.isLeftAlone(page) ? .volatile : .unseen
    }
}

/// Why a page is shared or not.
public struct PageExplanation: Equatable, Sendable {
    public let reason: PageSharingReason
    public let backing: PageBacking
    /// Pages that map what it maps, itself included; 0: that is not counted.
    public let mappers: Int
    /// Some of the others.
    public let others: [FrameMapper]
}
