@testable import FrameStore
import Testing

@testable import FrameBroker
import BrokerClient

@Suite struct PaceBoardTests {
    private static let second: UInt64 = 1_000_000_000

    @Test func whoAsksTakesAShare() {
        var board = PaceBoard<Int>()
        #expect(board.market(Self.second).sharers == 1)
        for client in 1...5 as ClosedRange<UInt32> {
            board.note(client, of: Int(client), waiting: 0, asks: client != 5, 2 * Self.second)
        }
        #expect(board.market(2 * Self.second).sharers == 4)
        // One asks again, one leaves, two have not asked for a while.
        board.note(1, of: 1, waiting: 0, asks: true, 4 * Self.second)
        board.note(2, of: 2, waiting: 0, asks: true, 4 * Self.second)
        board.remove(2)
        #expect(board.market(6 * Self.second).sharers == 1)
    }

    /// However many connections a process has, and whatever it says.
    @Test func aProcessTakesOneShareAndSaysNoMoreThanAll() {
        var board = PaceBoard<Int>()
        board.note(1, of: 1, waiting: 0, asks: true, Self.second)
        for client in 2...61 as ClosedRange<UInt32> {
            board.note(client, of: 2, waiting: .max, asks: true, Self.second)
        }
        let market = board.market(Self.second)
        #expect(market.sharers == 2 && market.waiting == 1000)
    }

    @Test func theLongestWaitCountsForAWhile() {
        var board = PaceBoard<Int>()
        board.note(1, of: 1, waiting: 100, asks: true, Self.second)
        board.note(2, of: 2, waiting: 900, asks: false, Self.second)
        #expect(board.market(Self.second + 1).waiting == 900)
        board.note(2, of: 2, waiting: 50, asks: false, 2 * Self.second)
        #expect(board.market(2 * Self.second + 1).waiting == 100)
        #expect(board.market(10 * Self.second).waiting == 0)
    }

    /// Over the wire: what one client says of its guest, another one hears, of whatever domain.
    @Test func clientsHearHowScarceTimeIs() throws {
        let stand = try BrokerStand()
        let starved = try stand.join("a")
        let other = try stand.join("b")
        var batch = StoreBatch()
        batch.waiting = 700
        batch.forgotten = [0]
        let own = try starved.exchange(batch)
        #expect(own.market.waiting == 700 && own.market.sharers == 1)
        eventually("the other one hears of it") {
            var batch = StoreBatch()
            batch.forgotten = [0]
            let heard = try? other.exchange(batch)
            return heard?.market.waiting == 700 && heard?.market.sharers == 1
        }
    }
}
