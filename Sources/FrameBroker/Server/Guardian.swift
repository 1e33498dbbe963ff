internal import FrameStore
internal import CLinux
internal import LinuxHost

/// A worker's eye on its supervisor: when that is gone, another one is started, which is given the lock, the listening socket and
/// a handle on the worker. The worker's clients notice nothing.
///
/// Both hold one end of a connection whose other end only the other one has: it closes when that one ends, however it does.
final class Guardian {
    /// What a worker says at its end, when it ends because nobody needs it.
    static let over: [UInt8] = [1]
    /// The supervisor's answer.
    static let heard: [UInt8] = [2]
    /// Milliseconds between two starts: doubled by each, forgotten after a minute.
    private static let pauses = 100...5000

    private let files: BrokerFiles
    private let options: [String]
    private let listener: Int32
    /// Held by whichever of the two lives: nobody else starts a broker meanwhile.
    private let lock: OwnedDescriptor
    private var channel: PacketSocket?
    private var nextStart: UInt64 = 0
    private var lastStart: UInt64
    private var pause = pauses.lowerBound

    /// - Parameter listener: the listening socket; it stays open as long as this object is used.
    init(
        _ files: BrokerFiles, _ options: [String], listener: Int32, lock: consuming OwnedDescriptor,
        channel: consuming PacketSocket
    ) {
        self.files = files
        self.options = options
        self.listener = listener
        self.lock = lock
        self.channel = consume channel
        lastStart = monotonicNanoseconds()
    }

    /// Becomes readable when the supervisor is lost; -1 when it is.
    var descriptor: Int32 {
        guard let number = channel?.descriptor.number else { return -1 }
        return number
    }

    var isAlone: Bool { channel == nil }

    /// To be called when ``descriptor`` is readable, and now and then while there is no supervisor.
    func look() {
        if channel != nil {
            var buffer = [UInt8](repeating: 0, count: 16)
            switch channel?.receive(into: &buffer) {
            case .packet(_, let passed): if passed >= 0 { _ = OwnedDescriptor(adopting: passed) }
            case .nothing, nil: break
            case .closed, .odd: lose()
            }
        }
        guard channel == nil, monotonicNanoseconds() >= nextStart else { return }
        start()
    }

    private func lose() {
        channel = nil
        let now = monotonicNanoseconds()
        if now - lastStart > 60_000_000_000 { pause = Self.pauses.lowerBound }
        nextStart = lastStart + UInt64(pause) * 1_000_000
        files.note("mingle-broker: the supervisor was lost; starting another")
    }

    private func start() {
        lastStart = monotonicNanoseconds()
        nextStart = lastStart + UInt64(pause) * 1_000_000
        pause = min(pause * 2, Self.pauses.upperBound)
        do throws(LinuxError) {
            let pair = try PacketSocket.pair()
            let own = try ProcessHandle.own()
            _ = try HostProcess.spawn(
                HostProcess.ownExecutable, ["adopt", files.directory] + options,
                inherited: [
                    listener, lock.number, pair.second.descriptor.number, own.descriptor.number,
                ], leads: .group)
            channel = pair.onlyFirst()
        } catch { files.note("mingle-broker: no supervisor could be started: \(error)") }
    }

    /// Nobody needs the broker: the supervisor puts its files away, or, where there is none, the worker does.
    func end() {
        if tellsSupervisor() { return }
        files.remove(files.socket)
        OwnCgroup.adopted()?.remove()
        files.remove(files.group)
        files.remove(files.lock)
    }

    /// - Returns: false when there is no supervisor; one that is stopped does its part when it goes on.
    private func tellsSupervisor() -> Bool {
        guard case .done = channel?.send(Self.over) else { return false }
        let deadline = monotonicNanoseconds() + 2_000_000_000
        var buffer = [UInt8](repeating: 0, count: 16)
        while true {
            switch channel?.receive(into: &buffer) {
            case .packet: return true
            case .closed, .odd, nil: return false
            case .nothing: if channel?.waitForInput(until: deadline) != true { return true }
            }
        }
    }
}
