import Foundation
import Synchronization

/// A clock for bounds of tests: seconds as the machine that they were chosen for would have had them.
///
/// A wait has a bound only so that a hang ends. Seconds of the wall are a bad one: beside other work, or on a slow or
/// emulated processor, everything takes longer and nothing is wrong. So a thread of its own looks twice a second at how slow this
/// machine is just now, and this clock goes on by that much less:
/// - how long a fixed piece of work takes, compared with a machine on which nothing else runs;
/// - how many threads want a processor, compared with the processors that there are.
///
/// If that thread itself gets no processor for a while, the clock stands still meanwhile.
public enum Pace {
    private struct State {
        var time = 0.0
        var last = ContinuousClock.now
        var slowness = 1.0
        var isRunning = false
    }
    private static let state = Mutex(State())
    private static let interval = 0.5

    /// In the nested lab, whose processor is emulated.
    static let isLab = ProcessInfo.processInfo.environment["MINGLE_LAB"] != nil
    /// Seconds that the piece takes on a quiet machine: measured on one of 2.8 GHz, in a debug build, and in the lab there.
    private static let reference = isLab ? 2e-3 : 0.2e-3

    /// Seconds since the first look at this clock. It never goes back.
    public static var now: Double {
        state.withLock { state in
            if !state.isRunning {
                state.isRunning = true
                state.last = .now
                Thread.detachNewThread { while true { tick() } }
            }
            return state.time + min((ContinuousClock.now - state.last).inSeconds, interval) / state.slowness
        }
    }

    /// How many times slower than a quiet machine this one is just now; 1 or more.
    public static var slowness: Double { state.withLock { $0.slowness } }

    private static func tick() {
        usleep(UInt32(interval * 1e6))
        let speed = max(1, secondsOfWork() / reference)
        let crowd = max(1, Double(runningThreads()) / Double(ProcessInfo.processInfo.activeProcessorCount))
        state.withLock { state in
            let now = ContinuousClock.now
            state.time += min((now - state.last).inSeconds, interval) / state.slowness
            state.last = now
            // A single look says little: the piece is short, and may be interrupted as a whole or not at all.
            state.slowness += (speed * crowd - state.slowness) / 8
        }
    }

    /// How long the piece of work takes: the same number of instructions each time.
    public static func secondsOfWork() -> Double {
        let start = ContinuousClock.now
        work()
        return (ContinuousClock.now - start).inSeconds
    }

    private static func work() {
        var value: UInt64 = 88_172_645_463_325_252
        for _ in 0..<40_000 {
            value ^= value << 13
            value ^= value >> 7
            value ^= value << 17
        }
        result.store(value, ordering: .relaxed)
    }
    private static let result = Atomic<UInt64>(0)

    /// Threads that run or want to, this one among them; the fourth field of /proc/loadavg is `running/all`.
    private static func runningThreads() -> Int {
        let text = FileManager.default.contents(atPath: "/proc/loadavg") ?? Data()
        let fields = String(decoding: text, as: UTF8.self).split(separator: " ")
        return fields.count > 3 ? fields[3].split(separator: "/").first.flatMap { Int($0) } ?? 1 : 1
    }

    /// The two together, for a message.
    public static var description: String {
        let rounded = (slowness * 10).rounded() / 10
        return
            "this machine is \(rounded) times slower than a quiet one, \(runningThreads()) threads want to run"
    }
}

extension Duration {
    var inSeconds: Double { Double(components.seconds) + Double(components.attoseconds) / 1e18 }
}

/// Looks until the condition holds: after 2 ms, and then less and less often, since what is waited for may need the processor.
/// - Parameter seconds: of ``Pace``.
/// - Returns: false when it did not within `seconds`.
public func eventually(within seconds: Double = 60, _ condition: () throws -> Bool) rethrows -> Bool {
    let start = Pace.now
    var pause: UInt32 = 2000
    while true {
        if try condition() { return true }
        if Pace.now - start > seconds { return false }
        usleep(pause)
        pause = min(pause + pause / 4, Pace.isLab ? 250_000 : 20_000)
    }
}
