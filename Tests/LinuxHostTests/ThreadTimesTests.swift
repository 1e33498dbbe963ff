import Testing

@testable import LinuxHost

@Suite struct ThreadTimesTests {
    @Test func aLineOfTheKernelsIsRead() {
        #expect(
            ThreadTimes.parse(Array("6378110 971786 2\n".utf8))
                == ProcessorTimes(running: 6_378_110, waiting: 971_786))
        #expect(ThreadTimes.parse(Array("0 0 0\n".utf8)) == ProcessorTimes())
        #expect(
            ThreadTimes.parse(Array("18446744073709551615 1".utf8))
                == ProcessorTimes(running: .max, waiting: 1))
    }

    @Test(arguments: ["", "\n", "7", "seven eight 9", " 1 2"]) func anythingElseIsNone(text: String) {
        #expect(ThreadTimes.parse(Array(text.utf8)) == nil)
    }

    /// Another thread reads what this one has used.
    @Test(
        .enabled(
            if: (try? ThreadTimes()) != nil, "the kernel does not count what threads run (CONFIG_SCHED_INFO)")
    )
    func timesGrowWithWork() throws {
        let own = try ThreadTimes()
        let before = try #require(own.read())
        var sum: UInt64 = 0
        while try #require(own.read()).running < before.running + 20_000_000 {
            for index in 0..<100_000 as Range<UInt64> { sum &+= index }
        }
        let seen = Monitor<ProcessorTimes?>(nil)
        let other = try HostThread(name: "reader") { seen.update { $0 = own.read() } }
        other.join()
        #expect(try #require(seen.withLock { $0 }).running >= before.running + 20_000_000)
    }
}
