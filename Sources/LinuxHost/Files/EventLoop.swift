internal import CLinux
internal import Glibc

/// Waits for many descriptors with epoll(7), and calls whoever waits for those that are ready. For one thread.
///
/// A *source* is a place for one descriptor at a time: what it waits for is said with ``watch(_:_:_:)``, again and again if need
/// be, and costs a system call only when it changes. Files that epoll refuses (regular files are always ready) are asked
/// with poll(2) in each turn. A descriptor is not closed while a source watches it: the kernel would go on reporting it as long as
/// somebody else holds the same open file.
package final class EventLoop {
    /// What a descriptor is ready for, and what a source waits for.
    package struct Events: OptionSet, Sendable {
        package let rawValue: UInt32
        package init(rawValue: UInt32) { self.rawValue = rawValue }
        package static let input = Events(rawValue: EPOLLIN.rawValue)
        package static let output = Events(rawValue: EPOLLOUT.rawValue)
        /// A pressure file's trigger, or out-of-band data (EPOLLPRI).
        package static let urgent = Events(rawValue: EPOLLPRI.rawValue)
        /// Error or hang-up; reported unasked while anything is waited for.
        package static let broken = Events(rawValue: EPOLLERR.rawValue | EPOLLHUP.rawValue)
    }

    /// A place in the loop; valid until it is removed.
    package struct Source: Hashable, Sendable { fileprivate let number: UInt64 }

    private struct Entry {
        var descriptor: Int32 = -1
        var interest: Events = []
        /// epoll takes no such file.
        var isPolled = false
        let handler: (Events) -> Void
    }

    /// Events that one turn takes from the kernel; the rest is for the next.
    private static let batch = 32
    /// How long a turn waits at most while some file can only be polled, in milliseconds.
    private static let pollInterval: Int32 = 10

    private let epoll: OwnedDescriptor
    private var entries: [UInt64: Entry] = [:]
    private var polled: Set<UInt64> = []
    private var next: UInt64 = 0
    /// What the kernel reports in a turn.
    private var found = [mingle_epoll_found](repeating: mingle_epoll_found(), count: EventLoop.batch)

    package init() throws(LinuxError) {
        let number = mingle_epoll()
        guard number >= 0 else { throw .current("epoll_create1") }
        epoll = OwnedDescriptor(adopting: number)
    }

    /// Makes a source that waits for nothing yet.
    /// - Parameter handler: called by ``turn(until:)``; it may add, change and remove sources, its own too.
    package func add(_ handler: @escaping (Events) -> Void) -> Source {
        next += 1
        entries[next] = Entry(handler: handler)
        return Source(number: next)
    }

    /// Says what a source waits for from now on.
    /// - Parameter descriptor: -1 for none; so is no interest.
    package func watch(_ source: Source, _ descriptor: Int32, _ interest: Events) {
        guard var entry = entries[source.number] else { preconditionFailure("a source that was removed") }
        let wanted = interest.isEmpty ? -1 : descriptor
        let interest = wanted < 0 ? [] : interest
        if entry.descriptor == wanted, entry.interest == interest { return }
        if entry.descriptor != wanted { forget(source.number, &entry) }
        if wanted >= 0, !entry.isPolled {
            let isNew = entry.descriptor < 0
            if !control(isNew ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, wanted, interest, source.number) {
                entry.isPolled = true
                polled.insert(source.number)
            }
        }
        (entry.descriptor, entry.interest) = (wanted, interest)
        entries[source.number] = entry
    }

    /// Takes a source out. No handler of it is called any more, not even for what this turn has found.
    package func remove(_ source: Source) {
        guard var entry = entries.removeValue(forKey: source.number) else { return }
        forget(source.number, &entry)
    }

    /// Waits until something is ready or the time has come, and calls the handlers of what is ready. A signal handler's
    /// interruption ends it early.
    /// - Parameter deadline: monotonic nanoseconds; nil for none.
    /// - Returns: how many handlers were called.
    @discardableResult
    package func turn(until deadline: UInt64? = nil) -> Int {
        var ready = pollOthers()
        var milliseconds = deadline.map(HostIO.milliseconds(until:)) ?? -1
        if !ready.isEmpty {
            milliseconds = 0
        } else if !polled.isEmpty {
            milliseconds = milliseconds < 0 ? Self.pollInterval : min(milliseconds, Self.pollInterval)
        }
        // SAFETY: the array has room for as many events as said.
        let count = unsafe mingle_epoll_wait(epoll.number, &found, Int32(Self.batch), milliseconds)
        for index in 0..<max(0, Int(count)) {
            ready.append((found[index].key, Events(rawValue: found[index].events)))
        }
        var called = 0
        for (number, events) in ready {
            // A handler before it may have changed its mind, or removed it.
            guard let entry = entries[number], entry.descriptor >= 0 else { continue }
            let wanted = events.intersection(entry.interest.union(.broken))
            if wanted.isEmpty { continue }
            entry.handler(wanted)
            called += 1
        }
        return called
    }

    private func pollOthers() -> [(UInt64, Events)] {
        if polled.isEmpty { return [] }
        var list = PollList()
        let order = polled.sorted().compactMap { number in entries[number].map { (number, $0) } }
        let places = order.map {
            list.add($0.1.descriptor, Int16(truncatingIfNeeded: $0.1.interest.rawValue))
        }
        list.wait(milliseconds: 0)
        return zip(order, places).compactMap { one, place in
            let found = list.events(place)
            let isBroken = found & Int16(POLLNVAL) != 0
            let events = Events(rawValue: UInt32(found)).union(isBroken ? .broken : [])
            return found == 0 ? nil : (one.0, events)
        }
    }

    private func forget(_ number: UInt64, _ entry: inout Entry) {
        if entry.isPolled {
            polled.remove(number)
        } else if entry.descriptor >= 0 {
            _ = control(EPOLL_CTL_DEL, entry.descriptor, [], number)
        }
        (entry.descriptor, entry.interest, entry.isPolled) = (-1, [], false)
    }

    private func control(_ operation: Int32, _ descriptor: Int32, _ events: Events, _ number: UInt64) -> Bool
    {
        mingle_epoll_control(epoll.number, operation, descriptor, events.rawValue, number) == 0
    }
}
