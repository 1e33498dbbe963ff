import GuestMemory
import LinuxHost
import Hypervisor
import VMMProtocol
import Sharing

/// Looks how short memory is, and has merging held, and an overcommitted guest paused, while it is too short
/// (docs/decisions/11-memory-pressure.md). On the main thread.
final class MemoryWatch {
    /// What the last look changed for the guest.
    enum Change { case paused, resumed }

    private let options: Options
    private let machine: VirtualMachine
    private let sharing: SharingSession?
    // Opened here, before the guest runs; every look only reads them.
    private let file = PressureFile()
    private let bounds = MemoryBoundReader()
    private let limits = ProcessLimits()
    private var pressure = MemoryPressure()
    private var pause = MemoryPause()
    private(set) var isPaused = false
    private var isHolding = false
    /// A guest that is asked to power off has to run for that, and gives its memory back.
    private var mayPause: Bool
    /// When to look at the latest, in monotonic nanoseconds.
    private(set) var nextLook: UInt64 = 0

    /// - Returns: nil for a guest that neither shares nor was promised more than there is: nothing would follow.
    init?(_ options: Options, _ machine: VirtualMachine, _ sharing: SharingSession?) {
        guard sharing != nil || options.overcommits else { return nil }
        self.options = options
        self.machine = machine
        self.sharing = sharing
        mayPause = options.overcommits
        _ = bounds.all()
    }

    /// none, some or full.
    var level: String { pressure.level.rawValue }
    /// To poll for POLLPRI: memory has become short.
    var descriptor: Int32 { file.descriptor }

    /// Looks, if it is time or the descriptor was ready.
    func look(isReady: Bool) -> Change? {
        let now = monotonicNanoseconds()
        guard isReady || now >= nextLook else { return nil }
        pressure.take(MemoryPressure.Reading(time: now, stalls: file.stalls(), bounds: bounds.all()))
        nextLook = now + pressure.interval(overcommits: mayPause)
        hold()
        guard mayPause else { return nil }
        // Frames that it maps are not its own; private copies of them are.
        pause.update(
            pressure, heldBytes: limits.anonymousBytes() + machine.memory.allocatedBytes)
        return follow()
    }

    private func hold() {
        guard let sharing else { return }
        let now = sharing.snapshot.statistics
        let owed = UInt64(now.pagesMapped + now.pagesZero) * Page.size
        let holds = pressure.holdsMerges(owedBytes: owed, overcommits: options.overcommits)
        guard holds != isHolding else { return }
        isHolding = holds
        sharing.setHold(holds)
        say(.info, holds ? "memory is short: nothing more is merged" : "merging goes on")
    }

    private func follow() -> Change? {
        guard pause.isPaused != isPaused else { return nil }
        isPaused = pause.isPaused
        if isPaused {
            machine.pause()
            say(
                .warning,
                "paused: memory is nearly used up (\(room())). It goes on by itself when twice the reserve is free: "
                    + "stop other guests or programs")
            return .paused
        }
        machine.resume()
        say(.warning, "goes on: there is memory again (\(room()))")
        return .resumed
    }

    /// The guest is asked to end: it is let go on, and not paused again.
    func release() {
        mayPause = false
        guard isPaused else { return }
        isPaused = false
        machine.resume()
    }

    private func room() -> String {
        guard let bound = pressure.tightest else { return "unknown" }
        return "\(bound.availableBytes >> 20) MiB left of \(bound.totalBytes >> 20) MiB "
            + "of \(bound.group.map { "control group \($0)" } ?? "the host"), "
            + "\(bound.reserveBytes >> 20) in reserve"
    }

    private func say(_ level: LogLevel, _ text: String) {
        guard options.logLevel <= level else { return }
        HostIO.tell("mingle: \(level.rawValue): \(options.configuration.name): \(text)\n")
    }
}
