import Foundation
import TestSupport
import Testing

@testable import LinuxHost

@Suite struct EventLoopTests {
    /// Both ends of a pipe that does not wait.
    private struct Pipe {
        let reader: Int32
        let writer: Int32
        init() throws {
            var ends: [Int32] = [0, 0]
            guard pipe(&ends) == 0, ends.allSatisfy({ fcntl($0, F_SETFL, O_NONBLOCK) == 0 }) else {
                throw LinuxError.current("pipe")
            }
            (reader, writer) = (ends[0], ends[1])
        }
        func put(_ count: Int = 1) {
            let bytes = [UInt8](repeating: 7, count: count)
            _ = write(writer, bytes, count)
        }
        func take() { var byte: UInt8 = 0; _ = read(reader, &byte, 1) }
        func closeBoth() {
            close(reader)
            close(writer)
        }
    }

    @Test func whoIsReadyIsCalledAndNobodyElse() throws {
        let loop = try EventLoop()
        let (first, second) = (try Pipe(), try Pipe())
        defer {
            first.closeBoth()
            second.closeBoth()
        }
        var calls: [String] = []
        let one = loop.add { calls.append("one \($0.rawValue)") }
        let two = loop.add { calls.append("two \($0.rawValue)") }
        loop.watch(one, first.reader, .input)
        loop.watch(two, second.reader, .input)
        #expect(loop.turn(until: monotonicNanoseconds()) == 0)
        second.put()
        #expect(loop.turn() == 1)
        #expect(calls == ["two \(EventLoop.Events.input.rawValue)"])
        // Still ready: reported again.
        #expect(loop.turn() == 1)
        first.put()
        calls = []
        #expect(loop.turn() == 2)
        #expect(calls.count == 2)
        loop.watch(two, -1, .input)
        loop.watch(one, first.reader, [])
        #expect(loop.turn(until: monotonicNanoseconds()) == 0)
        loop.watch(one, first.writer, .output)
        #expect(loop.turn() == 1, "a pipe with room")
    }

    /// A hang-up is reported while something is waited for, and not after.
    @Test func aBrokenPipeIsReportedToWhoWaits() throws {
        let loop = try EventLoop()
        let pipe = try Pipe()
        var found: [EventLoop.Events] = []
        let source = loop.add { found.append($0) }
        loop.watch(source, pipe.reader, .input)
        close(pipe.writer)
        #expect(loop.turn() == 1)
        #expect(found.last?.isDisjoint(with: .broken) == false)
        loop.watch(source, pipe.reader, [])
        #expect(loop.turn(until: monotonicNanoseconds() + 20_000_000) == 0, "no turn without end")
        close(pipe.reader)
    }

    @Test func filesThatEpollRefusesAreReadyAtOnce() throws {
        let directory = try TemporaryDirectory()
        let file = try OwnedDescriptor.open(directory.write("file", [1, 2, 3]), flags: O_RDONLY)
        let null = try OwnedDescriptor.open("/dev/null", flags: O_RDWR)
        let loop = try EventLoop()
        var calls: [String] = []
        let one = loop.add { _ in calls.append("file") }
        let two = loop.add { _ in calls.append("null") }
        loop.watch(one, file.number, .input)
        loop.watch(two, null.number, .output)
        let start = monotonicNanoseconds()
        #expect(loop.turn(until: start + 60_000_000_000) == 2)
        #expect(calls == ["file", "null"])
        loop.watch(one, -1, [])
        loop.remove(two)
        #expect(loop.turn(until: monotonicNanoseconds()) == 0)
        // What was such a file is a pipe now: back to epoll, where nothing is ready.
        let pipe = try Pipe()
        defer { pipe.closeBoth() }
        loop.watch(one, pipe.reader, .input)
        #expect(loop.turn(until: monotonicNanoseconds() + 20_000_000) == 0)
        pipe.put()
        #expect(loop.turn() == 1)
    }

    /// A descriptor that is closed already: its handler is told, and finds out why.
    @Test func aClosedDescriptorIsBroken() throws {
        let loop = try EventLoop()
        let pipe = try Pipe()
        pipe.closeBoth()
        var found: EventLoop.Events = []
        let source = loop.add { found = $0 }
        loop.watch(source, pipe.reader, .input)
        #expect(loop.turn() == 1)
        #expect(found == .broken)
    }

    @Test func aHandlerMayRemoveAnotherAndItself() throws {
        let loop = try EventLoop()
        let pipes = [try Pipe(), try Pipe()]
        defer { for pipe in pipes { pipe.closeBoth() } }
        var sources: [EventLoop.Source] = []
        var calls = 0
        for pipe in pipes {
            pipe.put()
            let source = loop.add { _ in
                calls += 1
                for source in sources { loop.remove(source) }
            }
            sources.append(source)
            loop.watch(source, pipe.reader, .input)
        }
        #expect(loop.turn() == 1, "both were ready; the first removed both")
        #expect(calls == 1)
        #expect(loop.turn(until: monotonicNanoseconds()) == 0)
    }

    /// A number under which another file lies now: the new source hears of it, the old one does not.
    @Test func aNumberThatIsUsedAgainBelongsToTheNewSource() throws {
        let loop = try EventLoop()
        let (pipe, other) = (try Pipe(), try Pipe())
        defer {
            pipe.closeBoth()
            other.closeBoth()
        }
        var calls: [String] = []
        let old = loop.add { _ in calls.append("old") }
        loop.watch(old, pipe.reader, .input)
        loop.remove(old)
        #expect(dup2(other.reader, pipe.reader) == pipe.reader)
        let new = loop.add { _ in calls.append("new") }
        loop.watch(new, pipe.reader, .input)
        other.put()
        #expect(loop.turn() == 1)
        #expect(calls == ["new"])
    }

    @Test func theDeadlineIsKept() throws {
        let loop = try EventLoop()
        let start = monotonicNanoseconds()
        #expect(loop.turn(until: start + 30_000_000) == 0)
        #expect(monotonicNanoseconds() >= start + 30_000_000)
    }

    /// Against a model: random interests in random pipes; who is called is who must be.
    @Test func randomInterests() throws {
        var random = SeededGenerator(for: "event loop")
        let loop = try EventLoop()
        let pipes = try (0..<6).map { _ in try Pipe() }
        defer { for pipe in pipes { pipe.closeBoth() } }
        var waiting = [Int](repeating: 0, count: 6)
        var called: Set<Int> = []
        let sources = (0..<6).map { number in loop.add { _ in called.insert(number) } }
        /// By source: which pipe's reader it watches.
        var watched = [Int?](repeating: nil, count: 6)
        for _ in 0..<3000 {
            let number = Int.random(in: 0..<6, using: &random)
            switch Int.random(in: 0..<4, using: &random) {
            case 0:
                pipes[number].put()
                waiting[number] += 1
            case 1 where waiting[number] > 0:
                pipes[number].take()
                waiting[number] -= 1
            default:
                // One source a descriptor.
                let free =
                    (0..<6).filter { pipe in !watched.contains(pipe) } + [watched[number]].compactMap { $0 }
                watched[number] = Bool.random(using: &random) ? free.randomElement(using: &random) : nil
                loop.watch(sources[number], watched[number].map { pipes[$0].reader } ?? -1, .input)
            }
            called = []
            loop.turn(until: monotonicNanoseconds())
            let expected = (0..<6).filter { source in watched[source].map { waiting[$0] > 0 } ?? false }
            try #require(called == Set(expected))
        }
    }
}
