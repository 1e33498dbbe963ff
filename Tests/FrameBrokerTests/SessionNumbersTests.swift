import Testing

@testable import FrameBroker

@Suite struct SessionNumbersTests {
    @Test func numbersComeAround() {
        func take(after last: UInt32, taken: [UInt32] = []) -> UInt32 {
            var numbers = SessionNumbers(after: last)
            return numbers.next { taken.contains($0) }
        }
        #expect(take(after: 0) == 1)
        #expect(take(after: .max - 1) == .max)
        #expect(take(after: .max) == 1, "0 is nobody's")
        #expect(take(after: .max, taken: [1, 2, 4]) == 3, "some are there still")
    }
}
