import FrameStore

/// Frames in a dictionary, for tests: it stops the program when a frame is written in place.
public final class InMemoryBacking: FrameBacking {
    public private(set) var frames: [FrameLocation: [UInt8]] = [:]
    /// Writes from now on that fail, after half of the frame was written.
    public var failingWrites = 0

    public init() {}

    public func write(_ bytes: [UInt8], at location: FrameLocation) throws(FrameStoreError) {
        precondition(frames[location] == nil, "a frame is never overwritten in place")
        if failingWrites > 0 {
            failingWrites -= 1
            frames[location] = Array(bytes.prefix(2048))
            throw .lost("injected")
        }
        frames[location] = bytes
    }
    public func copy(from old: FrameLocation, to new: FrameLocation) throws(FrameStoreError) {
        guard let bytes = frames[old] else { preconditionFailure("a frame that moves has bytes") }
        try write(bytes, at: new)
    }
    public func matches(_ bytes: [UInt8], at location: FrameLocation) -> Bool { frames[location] == bytes }
    public func discard(_ location: FrameLocation, count: Int) {
        for page in 0..<count { frames[location.advanced(by: page)] = nil }
    }
}
