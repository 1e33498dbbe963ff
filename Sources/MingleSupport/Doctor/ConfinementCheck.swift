internal import Confinement
internal import VMMProtocol

/// What of a VMM's confinement this host's kernel can enforce (docs/confinement.md).
enum ConfinementCheck {
    /// Judges what was found.
    static func check(_ ability: ConfinementAbility) -> HostCheck {
        let values: [(key: String, value: JSONValue)] = [
            ("filters", .boolean(ability.filters)),
            ("landlock", .optional(ability.landlock > 0 ? UInt64(ability.landlock) : nil)),
        ]
        guard ability.filters else {
            return HostCheck(
                "host.confinement", .problem,
                "the kernel cannot filter system calls: guests start with --confine off only",
                remedy: "use a kernel with CONFIG_SECCOMP_FILTER", values: values)
        }
        guard ability.landlock > 0 else {
            return HostCheck(
                "host.confinement", .warning,
                "VMMs are confined by filters of system calls alone: Landlock, the second line, is not there or is off",
                remedy: "add landlock to the list of lsm= on the kernel's command line", values: values)
        }
        return HostCheck(
            "host.confinement", .ok,
            "VMMs are confined: filters of system calls, Landlock (version \(ability.landlock))",
            values: values)
    }
}
