internal import VMMProtocol

/// The command line of a Linux guest.
public enum KernelCommandLine {
    /// The most bytes that x86 Linux keeps (COMMAND_LINE_SIZE is 2048 with the NUL).
    public static let maximumLength = 2047

    /// What every Linux guest is given unless `--bare-cmdline` is.
    ///
    /// - `console=ttyS0 quiet`: the serial line is the console, and only warnings and worse appear on it.
    /// - `panic=-1`: a panic reboots at once, and a reboot ends the VMM, instead of leaving a guest that hangs.
    /// - `random.trust_cpu=on`: a guest without devices has few other sources of entropy and would wait for it.
    /// - `cryptomgr.notests`: the self tests of crypto drivers are for new hardware and cost boot time.
    ///
    /// Left out on purpose: `reboot=t` (a reboot would be a triple fault, and could not be told from a kernel that lost
    /// its way; Linux resets by ACPI or the keyboard controller unasked), `tsc=reliable` (on a host whose TSC is not
    /// stable it makes the guest's time jump, and with kvm-clock it gains nothing), `no_timer_check` (a guest that finds
    /// KVM's CPUID leaves sets it by itself) and `mitigations=off` (whether the inside of a guest is trusted is its
    /// owner's choice).
    public static let defaults = [
        "console=ttyS0", "quiet", "panic=-1", "random.trust_cpu=on", "cryptomgr.notests",
    ]

    /// Puts a command line together: the defaults unless `bare`, what the image needs, then the user's words, so that
    /// the user's win where the kernel takes the last of several.
    public static func assemble(bare: Bool, image: [String], user: [String]) throws(SupportError) -> String {
        let words = (bare ? [] : defaults) + image + user
        let line = words.filter { !$0.isEmpty }.joined(separator: " ")
        try OneLine.check(line, option: "--cmdline")
        let count = line.utf8.count
        guard count <= maximumLength else {
            throw .commandLineTooLong(byteCount: count, limit: maximumLength)
        }
        return line
    }
}

extension OneLine {
    static func check(_ text: String, option: String) throws(SupportError) {
        if let control = text.utf8.first(where: { $0 < 0x20 || $0 == 0x7f }) {
            throw .controlCharacter(option: option, value: control)
        }
    }
}
