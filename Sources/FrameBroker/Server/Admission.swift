// Who gets a place when there are not enough for all. No process can keep another out that has none.

/// Places for connections that have not joined: strangers.
struct StrangerPlaces<Process: Hashable> {
    struct Stranger {
        var number: UInt32
        var process: Process
        /// It asked for statistics; else it has said nothing yet.
        var isObserver: Bool
        /// Its process has, or had, a connection that joined.
        var isKnown: Bool
    }
    /// Places for processes that nobody knows, and as many more for known ones.
    var places: Int
    var placesOfProcess: Int

    /// Who has to go for a newcomer; nil: nobody.
    /// - Parameter strangers: without the newcomer, the oldest first.
    func victim(for newcomer: Stranger, among strangers: [Stranger]) -> UInt32? {
        let own = strangers.filter { $0.process == newcomer.process }
        if own.count >= placesOfProcess { return leastLoss(own) }
        let rivals = strangers.filter { $0.isKnown == newcomer.isKnown }
        guard rivals.count >= places else { return nil }
        var counts: [Process: Int] = [:]
        for stranger in rivals { counts[stranger.process, default: 0] += 1 }
        let most = counts.values.max() ?? 0
        return leastLoss(rivals.filter { counts[$0.process] == most })
    }

    /// The oldest that has said nothing, else the oldest.
    private func leastLoss(_ strangers: [Stranger]) -> UInt32? {
        (strangers.first { !$0.isObserver } ?? strangers.first)?.number
    }
}

/// Places for clients. A client whose connection closed keeps its place while its process lives, since it may map frames; the process
/// may come back in that place. So each place is for two connections, one of them closed.
struct ClientPlaces<Process: Hashable> {
    var places: Int
    var placesOfProcess: Int
    private struct Use {
        var open = 0
        var closed = 0
        var places: Int { max(open, (open + closed + 1) / 2) }
    }
    private var used: [Process: Use] = [:]

    init(places: Int, placesOfProcess: Int) {
        (self.places, self.placesOfProcess) = (places, placesOfProcess)
    }

    mutating func count(_ process: Process, isOpen: Bool) {
        if isOpen {
            used[process, default: Use()].open += 1
        } else {
            used[process, default: Use()].closed += 1
        }
    }

    /// Why a process cannot have one more client; nil: it can.
    func refusal(of process: Process) -> String? {
        let own = used[process] ?? Use()
        let has = own.places
        // Its place is kept.
        if Use(open: own.open + 1, closed: own.closed).places == has { return nil }
        if has >= placesOfProcess {
            return "this process has \(has) clients, and no process may have more than \(placesOfProcess)"
        }
        let free = places - used.values.reduce(0) { $0 + $1.places }
        if free <= 0 { return "all \(places) places for guests of this user are taken: end guests" }
        // The scarcer places are, the fewer may one process have; for one without any there is one to the last.
        if has > free / 4 {
            return "this process has \(has) clients, and only \(free) places for guests of this user are left"
        }
        return nil
    }
}
