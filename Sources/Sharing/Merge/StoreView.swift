public import FrameStore

/// How frames of the store are compared with pages: read before a window opens, or mapped, is its own business.
/// Used by the scanner's thread alone.
public protocol StoreView: AnyObject {
    /// Frames that can be in view at a time.
    var viewLimit: Int { get }
    /// Takes frames into view for the coming window, beside those that are. Never in a window.
    /// - Returns: false when they cannot be read, or are too many.
    func view(_ first: FrameLocation, count: Int) -> Bool
    /// Whether all 4096 bytes of a page are those of a frame in view.
    func equals(_ page: Int, _ frame: FrameLocation) -> Bool
    /// Nothing is in view any more.
    func endView()
}

/// Which frames are in view, and the places of their copies in a buffer.
struct ViewedFrames {
    private struct Stretch {
        var first: FrameLocation
        var count: Int
        var place: Int
    }
    private var stretches: [Stretch] = []
    /// The stretch that was found last: pages are compared in order.
    private var last = 0
    /// Places that are taken.
    private(set) var count = 0

    /// Takes places for a stretch.
    /// - Returns: the first of them; nil when there are not so many.
    mutating func add(_ first: FrameLocation, count: Int, limit: Int) -> Int? {
        guard count > 0, self.count + count <= limit else { return nil }
        stretches.append(Stretch(first: first, count: count, place: self.count))
        defer { self.count += count }
        return self.count
    }

    /// The last stretch could not be read.
    mutating func removeLast() {
        if let stretch = stretches.popLast() { count -= stretch.count }
    }

    /// The place of a frame; nil: it is not in view. Allocates nothing.
    mutating func place(of frame: FrameLocation) -> Int? {
        for offset in stretches.indices {
            let index = (last + offset) % stretches.count
            let stretch = stretches[index]
            guard stretch.first <= frame, frame.value - stretch.first.value < UInt64(stretch.count) else {
                continue
            }
            last = index
            return stretch.place + Int(frame.value - stretch.first.value)
        }
        return nil
    }

    mutating func removeAll() {
        stretches.removeAll(keepingCapacity: true)
        (last, count) = (0, 0)
    }
}
