import FrameBroker
import Glibc
import GuestMemory
import Hypervisor

/// This guest's entry in the state directory (`guests/NAME`), for `mingle ps` and `mingle stop`.
final class GuestRecord {
    private let file: RegisteredFile
    private let text: String

    /// - Returns: nil when no state directory was given.
    /// - Throws: `NameTaken` when a guest of that name runs.
    init?(_ options: Options) throws {
        guard let directory = options.stateDirectory else { return nil }
        let configuration = options.configuration
        guard let file = try RegisteredFile.claim("\(directory)/guests/\(configuration.name)") else {
            throw NameTaken(name: configuration.name)
        }
        self.file = file
        let image = options.imageLabel.isEmpty ? configuration.kernelPath : options.imageLabel
        text = """
            pid=\(getpid())
            pid_namespace=\(ProcessNamespace.current)
            name=\(configuration.name)
            memory_bytes=\(configuration.memorySizeInBytes)
            cpus=\(configuration.processorCount)
            image=\(image.filter { !$0.isNewline })
            started_unix_ns=\(Self.unixNanoseconds())
            guest_index=\(configuration.payload.guestIndex)

            """ + (options.sharing.isOn ? options.sharing.brokerPath.map { "broker=\($0)\n" } ?? "" : "")
        update(state: "booting")
    }

    func update(state: String) { file.write(text + "state=\(state)\n") }

    private static func unixNanoseconds() -> UInt64 {
        var now = timespec()
        // SAFETY: fills a live local.
        unsafe clock_gettime(CLOCK_REALTIME, &now)
        return UInt64(max(0, now.tv_sec)) * 1_000_000_000 + UInt64(max(0, now.tv_nsec))
    }
}

/// Two running guests cannot have one name.
struct NameTaken: Error, CustomStringConvertible {
    let name: String
    var description: String {
        "a guest named '\(name)' is running: choose another --name, or `mingle stop \(name)`"
    }
}
