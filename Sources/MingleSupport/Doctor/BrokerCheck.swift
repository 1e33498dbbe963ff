internal import GuestMemory
internal import LinuxHost
internal import VMMProtocol

extension Doctor {
    /// What the frame broker that runs was given by whoever started it, and could not lift: all guests that share feel it.
    static func brokerCheck(_ state: StateDirectory) -> HostCheck {
        let report: BrokerReport?
        do throws(SupportError) {
            report =
                try state.isPresent() ? try BrokerReport.read(socket: BrokerService.socket(state)) : nil
        } catch { return HostCheck("mingle.broker", .warning, error.description) }
        guard let report else { return HostCheck("mingle.broker", .ok, "no frame broker runs") }
        return brokerCheck(report)
    }

    static func brokerCheck(_ report: BrokerReport) -> HostCheck {
        let kept = report.constraints.map(\.description)
        let values: [(key: String, value: JSONValue)] = [
            ("cgroup", .optional(report.group)), ("own_cgroup", .boolean(report.hasOwnCgroup)),
            ("kept_limits", .array(kept.map { .string($0) })),
        ]
        guard kept.isEmpty else {
            return HostCheck(
                "mingle.broker", .warning,
                "the frame broker keeps limits of whoever started it: " + kept.joined(separator: ", "),
                remedy: "end all guests, then start the first one that shares without these limits",
                values: values)
        }
        let place = report.group.map { ", frames are charged to control group \($0)" } ?? ""
        return HostCheck("mingle.broker", .ok, "the frame broker runs" + place, values: values)
    }
}
