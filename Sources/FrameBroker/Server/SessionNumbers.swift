/// Numbers for sessions, by which their domains know them. They come around after 2^32 connections.
struct SessionNumbers {
    private var last: UInt32

    /// - Parameter last: the one that was given out last.
    init(after last: UInt32 = 0) { self.last = last }

    /// The next one that is free; never 0.
    /// - Parameter isTaken: by a session that there is.
    mutating func next(isTaken: (UInt32) -> Bool) -> UInt32 {
        repeat { last &+= 1 } while last == 0 || isTaken(last)
        return last
    }
}
