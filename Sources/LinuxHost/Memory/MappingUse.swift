/// A mapping of a process, and what of it is in memory (proc_pid_smaps(5)).
package struct MappingUse {
    package let start: UInt64
    package let end: UInt64
    /// What is mapped, or what the kernel calls it; empty for anonymous memory.
    package let path: Substring
    private var lines: [Substring] = []

    /// What a line says, in KiB: that of `Pss` for example.
    package func kibibytes(_ name: String) -> UInt64? {
        line(name)?.split(separator: " ").first.flatMap { UInt64($0) }
    }

    /// The mapping's flags, of two letters each.
    package var flags: [Substring] { line("VmFlags")?.split(separator: " ") ?? [] }

    private func line(_ name: String) -> Substring? {
        lines.first { $0.hasPrefix(name + ":") }?.dropFirst(name.utf8.count + 1)
    }

    /// Reads a heading: `start-end permissions offset device inode path`.
    private init?(heading: Substring) {
        let fields = heading.split(separator: " ", maxSplits: 5)
        let ends = fields.first?.split(separator: "-").compactMap { UInt64($0, radix: 16) } ?? []
        guard fields.count >= 5, ends.count == 2, ends[0] < ends[1] else { return nil }
        start = ends[0]
        end = ends[1]
        path = fields.count > 5 ? fields[5].drop { $0 == " " } : ""
    }

    /// Reads the text of `/proc/PID/smaps`, and calls `body` for each mapping, in order of address.
    package static func forEach(_ smaps: String, _ body: (MappingUse) -> Void) {
        var current: MappingUse?
        for line in smaps.split(separator: "\n") {
            if let next = MappingUse(heading: line) {
                if let current { body(current) }
                current = next
            } else {
                current?.lines.append(line)
            }
        }
        if let current { body(current) }
    }
}
