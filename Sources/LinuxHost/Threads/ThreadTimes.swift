internal import CLinux
internal import Synchronization

/// How long threads ran and how long they were ready to run and waited for a CPU; nanoseconds since each thread began.
public struct ProcessorTimes: Equatable, Sendable {
    public var running: UInt64
    public var waiting: UInt64
    public init(running: UInt64 = 0, waiting: UInt64 = 0) {
        self.running = running
        self.waiting = waiting
    }
}

/// What the host's scheduler counts of one thread (Documentation/scheduler/sched-stats.rst, `/proc/<pid>/schedstat`).
///
/// The file is opened by the thread itself and stays open, so that reading needs neither a path nor memory.
public final class ThreadTimes: Sendable {
    private let file: OwnedDescriptor
    private let buffer = Mutex([UInt8](repeating: 0, count: 96))

    /// The calling thread's.
    /// - Throws: where the kernel does not count (CONFIG_SCHED_INFO), or there is no /proc.
    public init() throws(LinuxError) {
        file = try .open("/proc/thread-self/schedstat", flags: O_RDONLY)
    }

    /// What is counted until now; nil once the thread has ended. From any thread.
    public func read() -> ProcessorTimes? {
        buffer.withLock { bytes in
            do throws(LinuxError) {
                let count = try OwnedDescriptor.readBytes(of: file.number, into: &bytes, at: 0)
                return Self.parse(bytes.prefix(count))
            } catch { return nil }
        }
    }

    /// Of the line `running waiting timeslices`.
    static func parse(_ bytes: some Collection<UInt8>) -> ProcessorTimes? {
        var numbers: (UInt64, UInt64) = (0, 0)
        var field = 0
        var digits = 0
        for byte in bytes {
            if (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) {
                digits += 1
                let digit = UInt64(byte - UInt8(ascii: "0"))
                if field == 0 { numbers.0 = numbers.0 &* 10 &+ digit }
                if field == 1 { numbers.1 = numbers.1 &* 10 &+ digit }
            } else if byte == UInt8(ascii: " "), digits > 0 {
                field += 1
                digits = 0
            } else {
                break
            }
        }
        guard field >= 2 || field == 1 && digits > 0 else { return nil }
        return ProcessorTimes(running: numbers.0, waiting: numbers.1)
    }
}
