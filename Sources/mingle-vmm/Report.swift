import Glibc
import GuestMemory
import Hypervisor

/// What `--report` writes: one JSON object.
struct Report {
    let options: Options
    let outcome: Outcome
    let timeline: Timeline
    let built: UInt64
    let ended: UInt64

    func write(to path: String) throws(LinuxError) {
        let file = try OwnedDescriptor.open(path, flags: O_WRONLY | O_CREAT | O_TRUNC, mode: 0o644)
        HostIO.writeAll(file.number, json)
    }

    private var json: String {
        let configuration = options.configuration
        return """
            {
              "name": \(quoted(configuration.name)),
              "kernel": \(quoted(configuration.kernelPath)),
              "memory_bytes": \(configuration.memorySizeInBytes),
              "cpus": \(configuration.processorCount),
              "end": "\(outcome.end.word)",
              "status": \(outcome.status),
              "clock": "CLOCK_MONOTONIC",
            \(timeline.json(built: built, ended: ended))
            }

            """
    }

    private func quoted(_ text: String) -> String {
        var result = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": result += "\\\""
            case "\\": result += "\\\\"
            case _ where scalar.value < 0x20:
                result += "\\u00" + (scalar.value < 16 ? "0" : "") + String(scalar.value, radix: 16)
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result + "\""
    }
}
