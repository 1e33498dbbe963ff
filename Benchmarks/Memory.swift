import CLinux
import FoundationEssentials
import Glibc
import LinuxHost

/// The kernel's own count of a process's memory, in KiB.
struct MemoryUse {
    /// The VMM's own writable memory.
    var anonymous = 0
    /// Its share of program code and other files in the page cache.
    var files = 0
    /// Guest RAM that was touched.
    var guestMemory = 0
    var pageTables = 0

    init() {}

    init(process: pid_t) throws {
        let rollup = try fields("/proc/\(process)/smaps_rollup")
        let status = try fields("/proc/\(process)/status")
        anonymous = rollup["Pss_Anon"] ?? 0
        guestMemory = try Self.guestMemory(of: process)
        // Programs that lie in a tmpfs count as shared memory, as does the memfd of the guest.
        files = (rollup["Pss_File"] ?? 0) + (rollup["Pss_Shmem"] ?? 0) - guestMemory
        pageTables = status["VmPTE"] ?? 0
    }

    /// The memfd's share of memory.
    private static func guestMemory(of process: pid_t) throws -> Int {
        var sum = 0
        MappingUse.forEach(try contents("/proc/\(process)/smaps")) { mapping in
            if mapping.path.hasPrefix("/memfd:") { sum += Int(mapping.kibibytes("Pss") ?? 0) }
        }
        return sum
    }

    static func + (a: MemoryUse, b: MemoryUse) -> MemoryUse {
        var sum = MemoryUse()
        sum.anonymous = a.anonymous + b.anonymous
        sum.files = a.files + b.files
        sum.guestMemory = a.guestMemory + b.guestMemory
        sum.pageTables = a.pageTables + b.pageTables
        return sum
    }
}

/// Lines of `Name:  123 kB`.
func fields(_ path: String) throws -> [Substring: Int] {
    SmallFile.table(try contents(path)).mapValues { Int(clamping: $0) }
}

/// What the whole machine has in kernel slabs and in page tables of KVM and processes, in KiB.
struct KernelUse {
    let slab: Int
    let pageTables: Int
    /// `SecPageTables` counts KVM's; kernels before 6.1 do not have it.
    let secondaryPageTables: Int

    init() throws {
        let memory = try fields("/proc/meminfo")
        slab = memory["Slab"] ?? 0
        pageTables = memory["PageTables"] ?? 0
        secondaryPageTables = memory["SecPageTables"] ?? 0
    }
}

/// The text of a file, read to its end: those in /proc have no size.
func contents(_ path: String) throws -> String {
    guard let text = SystemCall.text(of: path, limit: 1 << 28) else { throw Failure("cannot read \(path)") }
    return text
}
