import LinuxHost
import CLinux
import Glibc

/// What KSM merged of some processes, and of no other: counted by page frame numbers (pagemap, which tells them to root).
struct MergedFrames: Equatable, Sendable {
    /// Pages in memory that KSM may merge.
    var present: UInt64 = 0
    /// Different frames behind them.
    var distinct: UInt64 = 0
    /// Frames that are behind several pages: KSM's pages_shared.
    var shared: UInt64 = 0

    /// What is saved: KSM's pages_sharing.
    var sharing: UInt64 { present - distinct }

    init() {}

    /// Counts frame numbers, with as many entries as there are pages.
    init(frames: some Sequence<UInt64>) {
        var uses: [UInt64: UInt32] = [:]
        for frame in frames {
            present += 1
            uses[frame, default: 0] += 1
        }
        distinct = UInt64(uses.count)
        shared = UInt64(uses.values.count { $0 > 1 })
    }

    /// Looks at processes that are there and do not change meanwhile.
    init(processes: [Int32]) throws(SupportError) {
        var frames: [UInt64] = []
        for process in processes {
            let map = "/proc/\(process)/pagemap"
            guard let text = SystemCall.text(of: "/proc/\(process)/smaps", limit: 1 << 26),
                case .success(let number) = SystemCall.open(map, flags: O_RDONLY)
            else { throw .systemCall(operation: "read", subject: map, code: errno) }
            let descriptor = OwnedDescriptor(adopting: number)
            for range in Self.mergeableRanges(smaps: text) {
                try Self.read(descriptor.number, range, into: &frames, path: map)
            }
        }
        self.init(frames: frames)
    }

    /// Addresses of mappings that have the flag `mg` (proc_pid_smaps(5)).
    static func mergeableRanges(smaps text: String) -> [Range<UInt64>] {
        var ranges: [Range<UInt64>] = []
        MappingUse.forEach(text) { mapping in
            if mapping.flags.contains("mg") { ranges.append(mapping.start..<mapping.end) }
        }
        return ranges
    }

    private static func read(
        _ descriptor: Int32, _ range: Range<UInt64>, into frames: inout [UInt64], path: String
    )
        throws(SupportError)
    {
        let batch: UInt64 = 1 << 16
        var page = range.lowerBound / RunChecks.pageSize
        let end = range.upperBound / RunChecks.pageSize
        while page < end {
            let count = Int(min(batch, end - page))
            guard case .success(let bytes) = SystemCall.read(descriptor, count: count * 8, at: Int(page) * 8),
                bytes.count == count * 8
            else { throw .systemCall(operation: "read", subject: path, code: errno) }
            for index in 0..<count {
                // Bit 63: present; bits 0 to 54: the frame's number.
                guard bytes[index * 8 + 7] & 0x80 != 0 else { continue }
                var entry: UInt64 = 0
                for byte in (0..<7).reversed() { entry = entry << 8 | UInt64(bytes[index * 8 + byte]) }
                frames.append(entry & (1 << 55 - 1))
            }
            page += UInt64(count)
        }
    }
}

/// What the kernel says of KSM in one process: /proc/PID/ksm_stat.
struct KSMProcess: Equatable, Sendable {
    /// Pages that KSM keeps track of, 64 bytes each.
    var rmapItems: UInt64 = 0
    /// Pages that are merged with others.
    var mergingPages: UInt64 = 0

    init(_ text: String) {
        let found = SmallFile.table(text)
        rmapItems = found["ksm_rmap_items"] ?? 0
        mergingPages = found["ksm_merging_pages"] ?? 0
    }

    init(process: Int32) {
        self.init(SystemCall.text(of: "/proc/\(process)/ksm_stat") ?? "")
        // Before Linux 6.4 this count has a file of its own.
        if mergingPages == 0, let text = SystemCall.text(of: "/proc/\(process)/ksm_merging_pages") {
            mergingPages = UInt64(text.prefix { $0.isNumber }) ?? 0
        }
    }
}
