import Foundation
import Synchronization
import TestSupport
import Testing

@testable import GuestMemory

@Suite struct DirtyBitmapTests {
    @Test(arguments: [1, 63, 64, 65, 200])
    func marksAreHarvestedOnceInOrder(pageCount: Int) throws {
        let bitmap = try DirtyBitmap(pageCount: pageCount)
        bitmap.mark(0..<1)
        bitmap.mark(pageCount - 1..<pageCount)
        bitmap.mark(0..<0)
        var words = [UInt64](repeating: 0, count: (pageCount + 63) / 64)
        bitmap.harvest(into: &words)
        let marked = (0..<pageCount).filter { words[$0 / 64] >> UInt64($0 % 64) & 1 == 1 }
        #expect(marked == Array(Set([0, pageCount - 1])).sorted())
        #expect(!(0..<pageCount).contains { bitmap.isMarked($0) })
        // A harvest adds to what the caller has.
        let before = words
        bitmap.harvest(into: &words)
        #expect(words == before)
    }

    @Test func aMarkOfManyPagesCoversThemAll() throws {
        let bitmap = try DirtyBitmap(pageCount: 300)
        bitmap.mark(60..<200)
        #expect((0..<300).filter { bitmap.isMarked($0) } == Array(60..<200))
    }

    /// Writers share words. Each marks a page again only when it was harvested, so the counts must agree in the end.
    @Test func concurrentMarksAreHarvestedExactlyOnce() throws {
        let (writers, pageCount, rounds) = (4, 256, 300)
        let bitmap = try DirtyBitmap(pageCount: pageCount)
        let finished = Atomic(0)
        let marks = Mutex([Int](repeating: 0, count: pageCount))
        let harvested = Mutex([Int](repeating: 0, count: pageCount))
        withWatchdog(seconds: 60, "marking and harvesting") {
            onThreads(writers + 1) { index in
                if index < writers {
                    let own = stride(from: index, to: pageCount, by: writers)
                    var count = [Int](repeating: 0, count: pageCount)
                    for round in 0..<rounds {
                        for page in own where !bitmap.isMarked(page) {
                            bitmap.mark(page..<page + 1)
                            count[page] += 1
                        }
                        if round % 8 == 0 { sched_yield() }
                    }
                    marks.withLock { all in for page in own { all[page] = count[page] } }
                    finished.add(1, ordering: .sequentiallyConsistent)
                } else {
                    var last = false
                    while true {
                        last = finished.load(ordering: .sequentiallyConsistent) == writers
                        var words = [UInt64](repeating: 0, count: pageCount / 64)
                        bitmap.harvest(into: &words)
                        harvested.withLock { counts in
                            for page in 0..<pageCount where words[page / 64] >> UInt64(page % 64) & 1 == 1 {
                                counts[page] += 1
                            }
                        }
                        if last { break }
                    }
                }
            }
        }
        let (made, taken) = (marks.withLock { $0 }, harvested.withLock { $0 })
        #expect(made == taken)
        #expect(made.reduce(0, +) >= pageCount)
    }

    @Test func pagesBeyondTheEndAreRefused() async {
        await #expect(processExitsWith: .failure) { try DirtyBitmap(pageCount: 64).mark(64..<65) }
        await #expect(processExitsWith: .failure) { _ = try DirtyBitmap(pageCount: 64).isMarked(64) }
        await #expect(processExitsWith: .failure) { try InFlightCounts(pageCount: 64).begin(63..<65) }
    }
}

@Suite struct InFlightCountsTests {
    @Test func countsNestAndNeighboursDoNotMix() throws {
        let counts = try InFlightCounts(pageCount: 5)
        counts.begin(0..<3)
        counts.begin(1..<2)
        #expect((0..<5).map { counts.count($0) } == [1, 2, 1, 0, 0])
        counts.end(0..<2)
        #expect((0..<5).map { counts.count($0) } == [0, 1, 1, 0, 0])
        counts.begin(4..<5)
        counts.end(1..<3)
        #expect((0..<5).map { counts.count($0) } == [0, 0, 0, 0, 1])
    }

    @Test func concurrentCountsEndAtZero() throws {
        let counts = try InFlightCounts(pageCount: 64)
        onThreads(4) { index in
            var random = SeededGenerator(seed: UInt64(index))
            for _ in 0..<2000 {
                let first = Int.random(in: 0..<64, using: &random)
                let pages = first..<Int.random(in: first...64, using: &random)
                counts.begin(pages)
                if let page = pages.first, !(1...4).contains(counts.count(page)) { abort() }
                counts.end(pages)
            }
        }
        #expect((0..<64).allSatisfy { counts.count($0) == 0 })
    }
}
