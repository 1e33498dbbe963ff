import CLinux
import Glibc

/// Debian's kernel from the spawn of the VMM to /init, against QEMU's smallest machine with the same kernel, initramfs
/// and command line, in turns. The end is the same for both: init's line on standard output.
enum BootBenchmark {
    private static let commandLine =
        "console=ttyS0 quiet panic=-1 random.trust_cpu=on cryptomgr.notests mingle.name=bench mingle.poweroff"

    static func run(_ programs: Programs, rounds: Int) throws {
        let kernel = try outputOf([programs.mingle, "images", "path", "vmlinux"])
        let initrd = try outputOf([programs.mingle, "images", "path", "initramfs"])
        let qemu = [
            "qemu-system-x86_64", "-M", "microvm,acpi=on,rtc=on,pit=on,pic=on,pcie=off,isa-serial=on",
            "-accel", "kvm",
            "-cpu", "host", "-m", "128", "-smp", "1", "-nodefaults", "-no-user-config", "-display", "none",
            "-no-reboot",
            "-serial", "stdio", "-kernel", kernel, "-initrd", initrd, "-append", commandLine,
        ]
        let mingle = [
            programs.mingle, "run", "--kernel", kernel, "--initrd", initrd, "--bare-cmdline", "--cmdline",
            commandLine,
        ]
        // Without the command line tool's checks, which QEMU does not have either.
        let vmm = [
            programs.mingle + "-vmm", "--kernel", kernel, "--initrd", initrd, "--cmdline", commandLine,
        ]
        var times: [[Double]] = [[], [], []]
        for round in 0...rounds {
            for (index, words) in [mingle, vmm, qemu].enumerated() {
                let process = try MeasuredProcess(words, together: true)
                guard let ready = try process.wait(for: Guest.readyText) else {
                    throw Failure("\(words[0]) ended early: \(process.output)")
                }
                try process.end()
                // The first of each fills the page cache.
                if round > 0 { times[index].append(Double(ready - process.spawned) / 1e6) }
            }
        }
        var table = Table("Debian's kernel to /init, \(rounds) of each in turns", "best", "median", "worst")
        for (name, values) in zip(["mingle run", "mingle-vmm alone", "QEMU microvm"], times) {
            table.add(name, seconds(values.min() ?? 0), seconds(median(values)), seconds(values.max() ?? 0))
        }
        table.show()
        let ratios = times.map { Int(($0.isEmpty ? 0 : median($0) / median(times[2]) * 100).rounded()) }
        print("  of QEMU's time (medians): mingle run \(ratios[0]) %, mingle-vmm alone \(ratios[1]) %")
    }
}
