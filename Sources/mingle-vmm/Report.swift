import GuestMemory
import Hypervisor

/// What `--report` writes: one JSON object.
struct Report {
    let options: Options
    let outcome: Outcome
    let timeline: Timeline
    let built: UInt64
    let ended: UInt64

    var json: String {
        let configuration = options.configuration
        return """
            {
              "name": \(JSONText.quoted(configuration.name)),
              "kernel": \(JSONText.quoted(configuration.kernelPath)),
              "memory_bytes": \(configuration.memorySizeInBytes),
              "cpus": \(configuration.processorCount),
              "end": "\(outcome.end.word)",
              "status": \(outcome.status),
              "clock": "CLOCK_MONOTONIC",
            \(timeline.json(built: built, ended: ended))
            }

            """
    }
}

/// JSON by hand: an encoder would bring Foundation.
enum JSONText {
    /// A string literal.
    static func quoted(_ text: String) -> String {
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
