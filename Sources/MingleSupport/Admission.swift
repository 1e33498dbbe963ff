import CLinux
internal import Glibc
internal import GuestMemory
internal import LinuxHost
internal import VMMProtocol

/// Whether the worst case of all guests fits in memory: each of them may write all of its pages at any time, and what
/// is shared then must be had once more. Guests of other users are known only by what they hold already.
public struct Admission: Sendable {
    /// What running guests may still ask for.
    struct Promise: Equatable, Sendable {
        var bytes: UInt64
        /// nil: nobody knows, so it counts in every group.
        var membership: ControlGroupMembership?
        /// The same without what it maps of frames: to copy all of them takes as much of its own groups.
        var bytesWithoutFrames: UInt64?
        /// Where frames are charged; nil when there are none, or it is not known.
        var frames: ControlGroupMembership?

        func isWithin(_ group: String) -> Bool { membership?.isWithin(group) ?? true }

        /// What it may come to need of a bound.
        func bytes(of bound: MemoryBound) -> UInt64 {
            guard let group = bound.group, let bytesWithoutFrames, let frames, !frames.isWithin(group) else {
                return bytes
            }
            return bytesWithoutFrames
        }
    }

    /// A bound that the worst case exceeds.
    struct Shortage: Equatable, Sendable {
        var bound: MemoryBound
        var promisedBytes: UInt64
        var promisedGuests: Int
        var wantedBytes: UInt64
        /// By how much.
        var bytes: UInt64
    }

    /// What a VMM and the kernel need for a guest besides its memory: heap and threads, page tables on both sides, the
    /// records of sharing.
    static func worstCase(memoryBytes: UInt64) -> UInt64 {
        let overhead = (4 << 20) + memoryBytes / 128
        let (sum, overflow) = memoryBytes.addingReportingOverflow(overhead)
        return overflow ? .max : sum
    }

    private let registry: GuestRegistry
    private let root: String

    /// - Parameter root: a folder in front of /proc and /sys, for tests.
    public init(registry: GuestRegistry, root: String = "") {
        self.registry = registry
        self.root = root
    }

    /// Checks guests that are about to be started by this process, with ``AdmissionLock`` held.
    /// - Parameters:
    ///   - guests: how many.
    ///   - memoryBytes: of each.
    ///   - overcommits: says by how much it does not fit, instead of refusing.
    /// - Returns: what to warn of.
    public func check(guests: Int, memoryBytes: UInt64, overcommits: Bool) throws(SupportError) -> String? {
        let unknown = try uncounted()
        if let record = unknown.first, !overcommits {
            throw .requirement(
                problem: "what guest '\(record.name)' may come to need is not known: \(record)",
                advice: "or start this one with --overcommit")
        }
        let bounds = MemoryBound.all(root: root)
        let (wanted, overflow) = Self.worstCase(memoryBytes: memoryBytes)
            .multipliedReportingOverflow(by: UInt64(guests))
        guard
            let shortage = Self.shortage(
                bounds, promises: try promises(countsFrames: bounds.contains { $0.group != nil }),
                wanted: overflow ? .max : wanted)
        else { return nil }
        let text = Self.words(shortage, guests: guests, memoryBytes: memoryBytes)
        if overcommits {
            return
                "\(text), \(ByteSize.format(shortage.bytes)) too little: guests are paused before it is used up"
        }
        throw .requirement(
            problem: text,
            advice: (guests > 1 ? "use fewer --guests, " : "use ") + "a smaller --memory, end other guests"
                + (shortage.bound.group == nil ? "" : ", raise the control group's limit")
                + ", or promise more than there is with --overcommit")
    }

    /// What all registered guests may still take, by the kernel's count of what they have.
    /// - Parameter countsFrames: whether groups have limits, so that it matters where frames are charged.
    private func promises(countsFrames: Bool) throws(SupportError) -> [Promise] {
        let broker = countsFrames ? BrokerService.processes(of: registry.directory).last : nil
        let frames = broker.map { ControlGroupMembership(process: "\($0)", root: root) }
        let found = try registry.guests()
        let sizes =
            found.running.map { ($0.name, registry.localProcess(of: $0), $0.memoryBytes) }
            + found.unreadable.compactMap { record in
                record.process.flatMap { process in
                    memoryBytes(of: record).map { (record.name, Int32?.some(process), $0) }
                }
            }
        return sizes.map { name, process, memoryBytes in
            let worst = Self.worstCase(memoryBytes: memoryBytes)
            // Proportional shares: of a frame that k guests map, each may need all but its kth part.
            // Only itself, and root, may look at a process that is not dumpable.
            let memory = process.flatMap { ProcessMemory(process: $0) } ?? client(of: name)?.processMemory()
            let held = memory?.residentBytes ?? 0
            var promise = Promise(
                bytes: worst - min(worst, held),
                membership: process.map { ControlGroupMembership(process: "\($0)", root: root) })
            promise.frames = frames
            if frames != nil, let home = statistics(of: name)?.homeBytes {
                let own = min(held, home + (memory?.anonymousBytes ?? 0))
                promise.bytesWithoutFrames = worst - min(worst, own)
            }
            return promise
        }
    }

    /// The size of a guest whose record does not say it: the guest itself does, if it can be asked.
    private func memoryBytes(of record: DamagedRecord) -> UInt64? {
        statistics(of: record.name)?.memoryBytes
    }

    private func statistics(of name: String) -> GuestStatistics? { try? client(of: name)?.statistics() }

    private func client(of name: String) -> ControlClient? {
        let path = registry.directory.controlPath + "/" + name
        return try? ControlClient(guest: name, path: path, seconds: 3)
    }

    /// Guests that run and cannot be counted.
    private func uncounted() throws(SupportError) -> [DamagedRecord] {
        try registry.guests().unreadable.filter { $0.process == nil || memoryBytes(of: $0) == nil }
    }

    /// The bound that is exceeded most.
    static func shortage(_ bounds: [MemoryBound], promises: [Promise], wanted: UInt64) -> Shortage? {
        var worst: Shortage?
        for bound in bounds {
            let inside = promises.filter { $0.isWithin(bound.group ?? "/") }
            let promised = inside.reduce(UInt64(0)) {
                $0.addingReportingOverflow($1.bytes(of: bound)).partialValue
            }
            let (sum, overflow) = promised.addingReportingOverflow(wanted)
            let room = bound.availableBytes - min(bound.availableBytes, bound.reserveBytes)
            guard overflow || sum > room else { continue }
            let missing = overflow ? UInt64.max : sum - room
            if let worst, worst.bytes >= missing { continue }
            worst = Shortage(
                bound: bound, promisedBytes: promised, promisedGuests: inside.count, wantedBytes: wanted,
                bytes: missing)
        }
        return worst
    }

    private static func words(_ shortage: Shortage, guests: Int, memoryBytes: UInt64) -> String {
        let bound = shortage.bound
        let who =
            guests == 1
            ? "a guest of \(ByteSize.format(memoryBytes))"
            : "\(guests) guests of \(ByteSize.format(memoryBytes))"
        let others =
            shortage.promisedGuests == 0
            ? ""
            : ", \(ByteSize.format(shortage.promisedBytes)) of it promised to \(shortage.promisedGuests) running "
                + (shortage.promisedGuests == 1 ? "guest" : "guests")
        return "\(who) may come to need \(ByteSize.format(shortage.wantedBytes)), and "
            + (bound.group.map { "the control group \($0)" } ?? "this host")
            + " has \(ByteSize.format(bound.availableBytes)) available\(others), "
            + "\(ByteSize.format(bound.reserveBytes)) kept in reserve"
    }
}

/// Held from before the check until the guest is registered and thereby counted, so that two that start at the same
/// time do not both take the last room. A lock on the folder of the guests' records; it goes with its last holder.
public struct AdmissionLock: ~Copyable {
    private let descriptor: OwnedDescriptor

    /// Waits for whoever is starting guests.
    /// - Parameter seconds: how long.
    public static func take(in directory: StateDirectory, seconds: Int = 30) throws(SupportError)
        -> AdmissionLock
    {
        let path = directory.guestsPath
        let descriptor: OwnedDescriptor
        switch SystemCall.open(path, flags: O_RDONLY | O_DIRECTORY | O_NOFOLLOW) {
        case .success(let number): descriptor = OwnedDescriptor(adopting: number)
        case .failure(let error): throw .systemCall(operation: "open", subject: path, code: error.code)
        }
        try wait(for: descriptor, path, seconds: seconds)
        return AdmissionLock(descriptor)
    }

    private init(_ descriptor: consuming OwnedDescriptor) { self.descriptor = descriptor }

    private static func wait(for descriptor: borrowing OwnedDescriptor, _ path: String, seconds: Int)
        throws(SupportError)
    {
        let deadline = Clock.monotonic.nanoseconds + UInt64(seconds) * 1_000_000_000
        while true {
            do throws(LinuxError) { if try descriptor.lock() { return } } catch {
                throw .systemCall(operation: "lock", subject: path, code: error.code)
            }
            guard Clock.monotonic.nanoseconds < deadline else {
                throw .requirement(
                    problem: "somebody has been starting guests for \(seconds) s and holds \(path)",
                    advice: "see who does with 'lsof \(path)'")
            }
            SystemCall.sleep(milliseconds: 5)
        }
    }

    /// Hands the lock to the program that this process becomes.
    /// - Returns: the descriptor's number, which that program closes when its guest is registered.
    public consuming func passOn() throws(SupportError) -> Int32 {
        // A duplicate that survives execve, and that is no standard stream even if one of those was closed.
        let number = mingle_fcntl(descriptor.number, F_DUPFD, 3)
        guard number >= 0 else {
            throw .systemCall(
                operation: "pass on", subject: "descriptor \(descriptor.number)", code: -number)
        }
        return number
    }
}
