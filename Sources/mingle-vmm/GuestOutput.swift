import Glibc
import GuestMemory
import LinuxHost
import Hypervisor
import VMMProtocol

/// What the guest says, on its way to whoever listens: standard output, a log, or nobody.
struct GuestOutput: ~Copyable {
    /// Why standard output did not take everything.
    enum Failure: Equatable {
        /// Its reader was too slow, and we were told to end.
        case notTaken
        /// errno.
        case system(Int32)
    }

    private static let chunk = 4096

    private let serial: Serial16550
    private let timeline: Timeline
    /// Standard output, also when it is gone: the event loop must not find another file under its number.
    private let standard: OutputChannel?
    private var log: GuestLog?
    private let logNumber: Int32?
    private var pending: ArraySlice<UInt8> = []
    /// What the guest says before a command or script in it begins, the kernel's messages and init's, is not its output: it
    /// goes to standard error. Nil where there is no such beginning.
    private var boot: OutputChannel?
    private var isBootMessage = false
    private var takenCount: UInt64 = 0
    /// Until when standard error may be slow with what waits for it, and how long each piece may take, nanoseconds.
    private var bootDeadline: UInt64 = 0
    private static let bootPatience: UInt64 = 1_000_000_000
    private var dropsBootMessages = false
    /// What was taken behind the last of it.
    private var following: ArraySlice<UInt8> = []
    private(set) var failure: Failure?
    /// Bytes for standard output that it did not take.
    private var lostBytes: UInt64 = 0

    /// - Parameter file: the log, if that is where it goes; it is emptied.
    init(
        _ options: Options, _ file: consuming OutputFile?, serial: Serial16550, timeline: Timeline
    ) throws(OutputFileError) {
        self.serial = serial
        self.timeline = timeline
        standard = options.serial == .standardStreams ? .standard(1) : nil
        boot = options.serial == .standardStreams && options.endOfFileToGuest ? .standard(2) : nil
        log = nil
        guard let file else {
            logNumber = nil
            return
        }
        logNumber = file.descriptor.number
        log = try GuestLog(file, guest: options.configuration.name)
    }

    /// Whether a write is worth waiting for.
    mutating func hasOutput() -> Bool {
        if pending.isEmpty { takeOutput() }
        // Nobody reads standard error: that must not keep the command's output back.
        if isBootMessage, !pending.isEmpty, monotonicNanoseconds() >= bootDeadline {
            dropsBootMessages = true
        }
        while dropsBootMessages, isBootMessage, !pending.isEmpty { takeOutput() }
        // Nobody listens: keep the line flowing.
        while target < 0, !pending.isEmpty {
            if failure != nil { lostBytes += UInt64(pending.count) }
            takeOutput()
        }
        return !pending.isEmpty
    }

    /// When to ask again whether output waits, though nothing happened; nil for never.
    var nextLook: UInt64? { isBootMessage && !pending.isEmpty ? bootDeadline : nil }

    /// Where the bytes that wait go, to be polled for room; -1 for nowhere.
    var target: Int32 {
        if isBootMessage { return boot?.number ?? -1 }
        return logNumber ?? (failure == nil ? standard?.number : nil) ?? -1
    }

    private mutating func takeOutput() {
        isBootMessage = false
        (pending, following) = (following, [])
        guard pending.isEmpty else { return }
        pending = serial.takeOutput(limit: Self.chunk)[...]
        guard boot != nil else { return }
        let start = takenCount
        takenCount += UInt64(pending.count)
        // Asked only now: as long as nothing has begun, all that was taken came before.
        let bootCount = Int(min(max(timeline.bootMessages ?? .max, start) - start, UInt64(pending.count)))
        following = pending.dropFirst(bootCount)
        if bootCount > 0 {
            isBootMessage = true
            pending = pending.prefix(bootCount)
            bootDeadline = monotonicNanoseconds() + Self.bootPatience
        } else {
            (pending, following) = (following, [])
        }
    }

    /// Writes once; the descriptor was ready.
    mutating func write() {
        if isBootMessage {
            switch boot?.write(pending) {
            case .bytes(let count): pending = pending.dropFirst(count)
            case .full: break
            // Without anybody to read what was said at the start, the guest is still wanted.
            case .failed, nil: pending = []
            }
        } else if log != nil {
            pending = log?.write(pending) ?? []
        } else {
            switch standard?.write(pending) {
            case .bytes(let count): pending = pending.dropFirst(count)
            case .full, nil: break
            case .failed(let code): failure = .system(code)
            }
        }
    }

    /// Gives up what has not been written, and ends the log.
    mutating func finish() {
        dropsBootMessages = true
        if hasOutput(), standard != nil, failure == nil { failure = .notTaken }
        while hasOutput() {
            log?.lose(pending)
            pending = []
        }
        log?.finish()
    }

    /// What happened to standard output, for people; nil if it took everything.
    var loss: String? {
        guard let failure else { return nil }
        let count = "\(lostBytes) bytes of the guest's output are lost"
        return switch failure {
        case .notTaken: "\(count): standard output did not take them"
        case .system(EPIPE): "\(count): nobody reads standard output any more"
        case .system(let code):
            "\(count): standard output cannot be written (\(LinuxError.message(code)))"
        }
    }
}
