import FrameStore
import TestSupport
import Testing

@testable import Sharing

@Suite struct ViewedFramesTests {
    /// Stretches come and go; the place of each frame is what a dictionary says.
    @Test func placesAgainstADictionary() {
        var random = SeededGenerator(for: "viewed frames")
        for _ in 0..<100 {
            var viewed = ViewedFrames()
            var plain: [UInt64: Int] = [:]
            var used = 0
            for _ in 0..<30 {
                if random.oneIn(12) {
                    viewed.removeAll()
                    (plain, used) = ([:], 0)
                }
                // Stretches of one view do not overlap: each is of other pages, and so of other frames.
                let first = UInt64.random(in: 0..<40, using: &random) * 16
                let count = Int.random(in: 1...16, using: &random)
                if plain[first] != nil { continue }
                let place = viewed.add(FrameLocation(first), count: count, limit: 40)
                #expect(place == (used + count <= 40 ? used : nil))
                guard let place else { continue }
                if random.oneIn(5) {
                    viewed.removeLast()
                } else {
                    for offset in 0..<count { plain[first + UInt64(offset)] = place + offset }
                    used += count
                }
                #expect(viewed.count == used)
                for _ in 0..<8 {
                    let frame = UInt64.random(in: 0..<660, using: &random)
                    #expect(viewed.place(of: FrameLocation(frame)) == plain[frame])
                }
            }
        }
    }
}
