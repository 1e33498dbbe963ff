import GuestMemory
import Hypervisor
import VMMProtocol

extension GuestReport {
    /// - Parameters:
    ///   - built: when the guest was ready to run.
    ///   - ended: when it had ended; both in nanoseconds of the monotonic clock.
    init(_ options: Options, _ outcome: Outcome, _ timeline: Timeline, built: UInt64, ended: UInt64) {
        self.init()
        let configuration = options.configuration
        name = configuration.name
        kernel = configuration.kernelPath
        memoryBytes = configuration.memorySizeInBytes
        cpuCount = UInt64(clamping: configuration.processorCount)
        end = outcome.end.word
        status = UInt64(outcome.status)
        started = timeline.started
        self.built = built
        entered = timeline.entered
        self.ended = ended
        let rings = timeline.rings
        ringCount = UInt64(clamping: rings.count)
        self.rings = rings.kept
    }
}
