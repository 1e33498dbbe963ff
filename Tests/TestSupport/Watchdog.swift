import Foundation

/// Ends the test process when a body that could deadlock takes too long: a hang would say nothing.
/// - Parameter seconds: of ``Pace``.
public func withWatchdog<Result>(
    seconds: Double, _ what: String, _ body: () throws -> Result
) rethrows -> Result {
    let done = DispatchSemaphore(value: 0)
    Thread.detachNewThread {
        let end = Pace.now + seconds
        while done.wait(timeout: .now() + 1) == .timedOut {
            guard Pace.now > end else { continue }
            FileHandle.standardError.write(
                Data("watchdog: \(what) still runs after \(seconds) s; \(Pace.description)\n".utf8))
            abort()
        }
    }
    defer { done.signal() }
    return try body()
}

/// Runs a body on `count` threads at a time and waits for all; each gets its number.
public func onThreads(_ count: Int, _ body: @escaping @Sendable (Int) -> Void) {
    let group = DispatchGroup()
    for index in 0..<count {
        group.enter()
        Thread.detachNewThread {
            body(index)
            group.leave()
        }
    }
    group.wait()
}
