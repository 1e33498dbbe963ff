import Testing

@testable import FrameBroker

@Suite struct TurnOrderTests {
    typealias Order = TurnOrder<String, Int>

    /// Always waiting: process, client, domain and how long its messages take, in ms.
    private struct Busy {
        let process: String
        let client: UInt32
        var domain: Int?
        var cost: UInt64
        var waiting: Order.Waiting { .init(process: process, client: client, domain: domain) }
    }

    /// Lets everybody talk for so long; says how much time each client got.
    private func talk(_ order: inout Order, _ busy: [Busy], milliseconds: UInt64) -> [UInt32: UInt64] {
        var times: [UInt32: UInt64] = [:]
        var spent: UInt64 = 0
        while spent < milliseconds {
            order.begin(busy.map(\.waiting))
            guard let next = order.next(), let own = busy.first(where: { $0.waiting == next }) else { break }
            order.spend(own.cost * 1_000_000)
            times[own.client, default: 0] += own.cost
            spent += own.cost
        }
        return times
    }

    @Test func timeCountsAndNotMessages() {
        var order = Order()
        let times = talk(
            &order,
            [.init(process: "a", client: 1, cost: 10), .init(process: "b", client: 2, cost: 1)],
            milliseconds: 1000)
        #expect(485...515 ~= times[1] ?? 0 && 485...515 ~= times[2] ?? 0, "\(times)")
    }

    @Test func aProcessOfManyClientsGetsNoMoreThanOneOfOne() {
        var order = Order()
        var busy = (1...60).map {
            Busy(process: "many", client: $0, domain: Int($0), cost: $0 % 2 == 0 ? 4 : 1)
        }
        busy.append(.init(process: "one", client: 100, domain: 100, cost: 2))
        let times = talk(&order, busy, milliseconds: 6000)
        #expect(2900...3100 ~= times[100] ?? 0, "\(times)")
        // And its clients get the same among each other.
        for client in UInt32(1)...60 { #expect(40...60 ~= times[client] ?? 0, "\(client): \(times)") }
    }

    @Test func aDomainOfManyProcessesGetsNoMoreThanOneOfOne() {
        var order = Order()
        var busy = (1...20).map { Busy(process: "p\($0)", client: $0, domain: 1, cost: 3) }
        busy.append(.init(process: "alone", client: 100, domain: 2, cost: 1))
        let times = talk(&order, busy, milliseconds: 4000)
        #expect(1800...2200 ~= times[100] ?? 0, "\(times)")
    }

    /// However long others have been busy, who comes back is next; and gets no more than them when it becomes busy itself.
    @Test func whoWasQuietIsNextAndHasSavedUpNothing() {
        var order = Order()
        let crowd = (1...120).map { Busy(process: "p\($0 % 7)", client: $0, domain: Int($0), cost: 5) }
        _ = talk(&order, [Busy(process: "q", client: 500, domain: 500, cost: 1)] + crowd, milliseconds: 700)
        _ = talk(&order, crowd, milliseconds: 10_000)
        for _ in 0..<20 {
            order.begin(crowd.map(\.waiting) + [.init(process: "q", client: 500, domain: 500)])
            #expect(order.next()?.process == "q")
            order.spend(100_000)
            _ = talk(&order, crowd, milliseconds: 200)
        }
        let times = talk(
            &order, [Busy(process: "q", client: 500, domain: 500, cost: 1)] + crowd, milliseconds: 800)
        #expect(80...130 ~= times[500] ?? 0, "\(times[500] ?? 0)")
    }

    @Test func eachWaitsOnceATurn() {
        var order = Order()
        let waiting = (0..<9).map { Order.Waiting(process: "p\($0 % 2)", client: UInt32($0), domain: nil) }
        order.begin(waiting)
        var heard: [UInt32] = []
        while let next = order.next() {
            heard.append(next.client)
            order.spend(1000)
        }
        #expect(heard.sorted() == Array(0..<9))
        // p0 has five, p1 four: they take turns.
        #expect(heard.prefix(8).map { $0 % 2 } == [0, 1, 0, 1, 0, 1, 0, 1])
        for client in UInt32(0)..<9 { order.forget(client: client, of: "p\(client % 2)") }
        order.begin([])
        #expect(order.next() == nil)
    }

    /// Processes that come and go are not remembered for ever, and those that are ahead stay so.
    @Test func whoIsGoneIsForgotten() {
        var order = Order()
        order.begin([.init(process: "greedy", client: 0)])
        _ = order.next()
        order.spend(1_000_000_000)
        for number in UInt32(1)...2000 {
            order.begin([.init(process: "p\(number)", client: number), .init(process: "greedy", client: 0)])
            #expect(order.next()?.process == "p\(number)")
            order.spend(10)
        }
    }
}
