import Testing

@testable import Hypervisor

@Suite struct InitrdJoinTests {
    @Test func fourZerosAndAMultipleOfFourBetweenArchives() throws {
        for size in UInt64(1)...9 {
            let join = try joined([size, 5, 4])
            let second = join.pieces[1].offset
            #expect(join.pieces[0] == .init(offset: 0, size: size))
            #expect(second.isMultiple(of: 4) && (4...7).contains(second - size), "behind \(size) bytes")
            #expect(join.pieces[2] == .init(offset: second + 12, size: 4), "5 + 4 + 3")
            #expect(join.sizeInBytes == second + 16, "nothing behind the last")
        }
    }

    @Test func anArchiveAloneIsLeftAsItIs() throws {
        let join = try joined([5001])
        #expect(join.sizeInBytes == 5001 && join.pieces == [.init(offset: 0, size: 5001)])
    }

    @Test(arguments: [[.max - 5, 1], [8, .max - 10], [1, 1, .max]] as [[UInt64]])
    func sizesThatOverflowAreRefused(sizes: [UInt64]) throws {
        var join = try joined(Array(sizes.dropLast()))
        let before = join
        let fits = join.append(sizes.last ?? 0)
        #expect(!fits && join == before)
    }

    private func joined(_ sizes: [UInt64]) throws -> InitrdJoin {
        var join = InitrdJoin()
        for size in sizes {
            let fits = join.append(size)
            try #require(fits)
        }
        return join
    }
}
