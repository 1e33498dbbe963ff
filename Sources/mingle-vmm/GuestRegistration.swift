import CLinux
import Glibc
import GuestMemory
import LinuxHost
import Hypervisor
import VMMProtocol

/// This guest's entry in the state directory (`guests/NAME`), for `mingle ps` and `mingle stop`.
final class GuestRegistration {
    private var file: RegisteredFile
    private var record: GuestRecord

    /// - Returns: nil when no state directory was given.
    /// - Throws: `NameTaken` when a guest of that name runs, `NoRecord` when it cannot be written.
    init?(_ options: Options) throws {
        guard let directory = options.stateDirectory else { return nil }
        let configuration = options.configuration
        let path = directory + "/" + StateFolder.guests + "/" + configuration.name
        let claimed: RegisteredFile?
        do throws(LinuxError) { claimed = try RegisteredFile.claim(path) } catch {
            throw NoRecord(directory: directory, error: error)
        }
        guard var file = claimed else { throw NameTaken(name: configuration.name) }
        let record = GuestRecord(
            name: configuration.name, process: getpid(), memoryBytes: configuration.memorySizeInBytes,
            cpuCount: configuration.processorCount,
            image: options.imageLabel.isEmpty ? configuration.kernelPath : options.imageLabel,
            startedUnixNanoseconds: Clock.realtime.nanoseconds,
            startedBootNanoseconds: Clock.boot.nanoseconds, state: .booting,
            guestIndex: configuration.payload.guestIndex, processNamespace: ProcessNamespace.current,
            broker: options.sharing.isOn ? options.sharing.brokerPath : nil,
            isConfined: options.isConfined)
        do throws(LinuxError) { try file.write(record.text) } catch {
            throw NoRecord(directory: directory, error: error)
        }
        self.file = file
        self.record = record
    }

    /// A record that cannot be replaced says the old state: everything else in it stays true.
    func update(state: GuestRecord.State) {
        guard state != record.state else { return }
        record.state = state
        try? file.overwrite(record.text)
    }
}

/// Two running guests cannot have one name.
struct NameTaken: Error, CustomStringConvertible {
    let name: String
    var description: String {
        "a guest named '\(name)' is running: choose another --name, or `mingle stop \(name)`"
    }
}

/// A guest that is not registered would be seen by nobody, and could not be stopped by name.
struct NoRecord: Error, CustomStringConvertible {
    let directory: String
    let error: LinuxError
    var description: String {
        let advice =
            error.code == ENOSPC || error.code == EDQUOT
            ? "no space is left for it: free some, or set XDG_RUNTIME_DIR to a directory of yours that has space"
            : "\(error)"
        return "the guest's record cannot be written in the state directory \(directory): \(advice)"
    }
}
