internal import CLinux

/// Descriptors to wait for with poll(2), whose number is bounded by that of open files: those that are none are left out.
package struct PollList {
    private var list: [pollfd] = []

    package init() {}

    package mutating func reserveCapacity(_ count: Int) { list.reserveCapacity(count) }

    /// - Returns: where its events are found afterwards; nil for a negative number.
    package mutating func add(_ descriptor: Int32, _ events: Int16) -> Int? {
        if descriptor < 0 { return nil }
        list.append(pollfd(fd: descriptor, events: events, revents: 0))
        return list.count - 1
    }

    /// Waits; an interrupted wait finds nothing.
    /// - Parameter milliseconds: negative waits for ever.
    package mutating func wait(milliseconds: Int32) {
        // SAFETY: the array is alive for the call and as long as said.
        if unsafe CLinux.poll(&list, nfds_t(list.count), milliseconds) < 0 {
            for index in list.indices { list[index].revents = 0 }
        }
    }

    /// Waits for one descriptor.
    package static func events(of descriptor: Int32, _ events: Int16, milliseconds: Int32) -> Int16 {
        var list = PollList()
        let place = list.add(descriptor, events)
        list.wait(milliseconds: milliseconds)
        return list.events(place)
    }

    /// Waits for one descriptor until it is ready, broken included.
    /// - Parameter deadline: monotonic nanoseconds; 0 looks once.
    package static func isReady(
        _ descriptor: Int32, _ events: EventLoop.Events, until deadline: UInt64 = 0
    ) -> Bool {
        let milliseconds = deadline == 0 ? 0 : HostIO.milliseconds(until: deadline)
        return self.events(
            of: descriptor, Int16(truncatingIfNeeded: events.rawValue), milliseconds: milliseconds) != 0
    }

    /// What was found; 0 for what was not added.
    package func events(_ place: Int?) -> Int16 { place.map { list[$0].revents } ?? 0 }
}
