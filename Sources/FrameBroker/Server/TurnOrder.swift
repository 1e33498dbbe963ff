/// Whose message is next: whoever was given the least of the broker's time, by process, then by client of a process
/// (start-time fair queueing: Goyal, Vin and Cheng, 1996).
///
/// Each process has a *tag*: the time that was spent on it. Time spent in a domain counts as often as processes of the domain wait,
/// so that a domain of many gets no more than one of a few. The one with the least tag is next, and its tag is the *floor*: who
/// had nothing to say has saved up nothing, and comes back at the floor, before those that were there all the time. So one that
/// asks for little is next as soon as the message at hand is done, however many ask for much.
struct TurnOrder<Process: Hashable, Domain: Hashable> {
    /// A client that has something to say.
    struct Waiting: Equatable {
        var process: Process
        var client: UInt32
        /// nil: none yet.
        var domain: Domain?
    }
    private struct Tags {
        var tag: UInt64 = 0
        /// Of the process's clients, as far as they are ahead of ``clientFloor``.
        var clients: [UInt32: UInt64] = [:]
        var clientFloor: UInt64 = 0
    }

    private struct Place {
        var process: Process
        /// At least the floor; among equals, those before whose own one was less.
        var tag: UInt64
        var ownTag: UInt64
        var clients: [Waiting]
    }

    /// Processes that are remembered without a look whether they have to be.
    private static var keptTags: Int { 256 }

    private var tags: [Process: Tags] = [:]
    private var floor: UInt64 = 0
    /// Who waits, a list for each process.
    private var queue: [Place] = []
    /// Processes of each domain that wait.
    private var crowds: [Domain: UInt64] = [:]
    private var current: Waiting?

    /// Says who waits now, instead of who waited before.
    mutating func begin(_ waiting: [Waiting]) {
        forgetPast()
        queue.removeAll(keepingCapacity: true)
        crowds.removeAll(keepingCapacity: true)
        current = nil
        var places: [Process: Int] = [:]
        for next in waiting {
            if let place = places[next.process] {
                if let domain = next.domain, !queue[place].clients.contains(where: { $0.domain == domain }) {
                    crowds[domain, default: 0] += 1
                }
                queue[place].clients.append(next)
            } else {
                places[next.process] = queue.count
                if let domain = next.domain { crowds[domain, default: 0] += 1 }
                let own = tags[next.process]?.tag ?? 0
                queue.append(
                    Place(process: next.process, tag: max(floor, own), ownTag: own, clients: [next]))
            }
        }
    }

    /// The one to listen to now; nil when nobody waits any more. Its time is told by ``spend(_:)``.
    mutating func next() -> Waiting? {
        guard var best = queue.indices.first else { return nil }
        for place in queue.indices
        where (queue[place].tag, queue[place].ownTag) < (queue[best].tag, queue[best].ownTag) { best = place }
        let process = queue[best].process
        floor = max(floor, queue[best].tag)
        var own = tags[process] ?? Tags()
        own.tag = queue[best].tag
        func tag(_ waiting: Waiting) -> UInt64 { max(own.clientFloor, own.clients[waiting.client] ?? 0) }
        var first = 0
        for place in queue[best].clients.indices
        where tag(queue[best].clients[place]) < tag(queue[best].clients[first]) { first = place }
        let chosen = queue[best].clients.remove(at: first)
        own.clientFloor = tag(chosen)
        tags[process] = own
        if queue[best].clients.isEmpty { queue.remove(at: best) }
        current = chosen
        return chosen
    }

    /// The message of who was ``next()`` took so long.
    mutating func spend(_ nanoseconds: UInt64) {
        guard let last = current else { return }
        current = nil
        // Nothing is free, or many such would never be anybody else's turn.
        let time = max(nanoseconds, 1)
        var own = tags[last.process] ?? Tags()
        own.clients[last.client] = own.clientFloor &+ time
        own.tag &+= time &* max(1, last.domain.flatMap { crowds[$0] } ?? 1)
        tags[last.process] = own
        if let place = queue.firstIndex(where: { $0.process == last.process }) {
            (queue[place].tag, queue[place].ownTag) = (own.tag, own.tag)
        }
    }

    /// Who is not ahead is as one that was never seen.
    private mutating func forgetPast() {
        guard tags.count > Self.keptTags else { return }
        let floor = floor
        tags = tags.filter { $0.value.tag > floor }
    }

    /// A client is gone for good.
    mutating func forget(client: UInt32, of process: Process) { tags[process]?.clients[client] = nil }
}
