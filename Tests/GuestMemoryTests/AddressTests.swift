import GuestMemory
import LinuxHost
import Testing

@Suite struct AddressTests {
    @Test func roundingUpStopsAtTheEndOfTheNumbers() {
        #expect(Page.roundUp(0) == 0)
        #expect(Page.roundUp(1) == 4096)
        #expect(Page.roundUp(4096) == 4096)
        #expect(Page.roundUp(UInt64.max - 4095) == UInt64.max - 4095)
        #expect(Page.roundUp(UInt64.max - 4094) == nil)
        #expect(Page.isAligned(8192) && !Page.isAligned(8193))
    }

    @Test func addressesDoNotWrap() {
        #expect(GuestAddress(UInt64.max).advanced(by: 0) == GuestAddress(UInt64.max))
        #expect(GuestAddress(UInt64.max).advanced(by: 1) == nil)
        #expect(GuestRange(start: GuestAddress(UInt64.max), sizeInBytes: 1) == nil)
        #expect(
            GuestRange(start: GuestAddress(UInt64.max - 1), sizeInBytes: 1)?.end == GuestAddress(UInt64.max))
        #expect(GuestAddress(0x1fff).frame == GuestFrameNumber(1))
        #expect(GuestFrameNumber(1).address == GuestAddress(0x1000))
    }

    @Test func rangesOverlapByAtLeastAByte() throws {
        func range(_ start: UInt64, _ size: UInt64) throws -> GuestRange {
            try #require(GuestRange(start: GuestAddress(start), sizeInBytes: size))
        }
        #expect(try range(0, 10).overlaps(range(9, 1)))
        #expect(try !range(0, 10).overlaps(range(10, 1)))
        #expect(try !range(0, 10).overlaps(range(5, 0)))
        #expect(try range(0, 10).contains(range(0, 10)))
        #expect(try !range(0, 10).contains(range(0, 11)))
        #expect(try !range(1, 10).contains(range(0, 2)))
        #expect(try range(0x1000, 0x1000).description == "[0x1000, 0x2000)")
    }
}
