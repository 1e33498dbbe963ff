@testable import SharingTestKit

/// The steps in which tests of single behaviours are told.
extension ModelRun {
    /// A run of two guests.
    static func ofTwo(_ change: (inout Setup) -> Void = { _ in }) throws -> ModelRun {
        var setup = Setup()
        setup.guests = 2
        change(&setup)
        return try ModelRun(setup)
    }

    /// Writes contents of which no two pages have the same, and all guests the same at the same page.
    /// - Parameters:
    ///   - base: others with another base.
    ///   - second: what the second half of each page holds; nil: what no first half holds.
    func fill(_ guest: Int, _ pages: Range<Int>, base: UInt64 = 100, second: UInt64? = nil) throws {
        for page in pages {
            try perform(
                .fill(
                    guest, page: page, count: 1, first: base + UInt64(page), second: second ?? base * 1000))
        }
    }

    /// Whole passes of one guest, each after some time.
    func pass(_ guest: Int, after nanoseconds: UInt64 = 0, times: Int = 1) throws {
        for _ in 0..<times {
            world.time += nanoseconds
            try perform(.pass(guest, budget: .max / 2, meanwhile: []))
        }
    }

    /// Whole passes of two guests in turns.
    func passes(_ count: Int = 4) throws {
        for _ in 0..<count { for guest in 0...1 { try pass(guest) } }
    }
}
