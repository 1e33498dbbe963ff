import LinuxHost
import ArgumentParser
import MingleSupport
import VMMProtocol

/// `mingle ps`: the running guests of this user.
struct PSCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ps",
        abstract: "List the guests that run.",
        discussion: """
            SHARED is how much of it is mapped to frames that other guests may map, too, or to the page of zeros. \
            MEMORY is the size of the guest's RAM; RESIDENT is what the guest and its VMM hold of the host's memory \
            now. Only your own guests are listed. One whose record is damaged runs all the same, and can be stopped.

            EXAMPLES
              mingle ps
              mingle ps --json | jq -r '.[].name'
            """)

    @Flag(help: "Print a JSON array; sizes are in bytes.")
    var json = false

    @OptionGroup var log: LogOptions

    func run() throws {
        let directory = StateDirectory.current()
        let registry = GuestRegistry(directory: directory)
        let found = try registry.guests()
        for record in found.unreadable { log.console.log(.warning, record.description) }
        let now = Clock.boot.nanoseconds
        let rows = found.running.map { Row(record: $0, now: now, registry: registry, directory: directory) }
        let damaged = found.unreadable
        try StandardOutput.print(
            json
                ? JSONValue.array(rows.map(\.json) + damaged.map(Self.json)).text()
                : Self.table(rows, damaged))
    }

    /// One guest, measured.
    private struct Row {
        let record: GuestRecord
        /// nil where it has no number in this PID namespace.
        let process: Int32?
        let residentBytes: UInt64?
        /// nil of a guest that was started by an older version.
        let uptimeSeconds: UInt64?
        /// What it is at; `stopped`: its process is, by a terminal or a signal.
        let state: String
        let statistics: GuestStatistics?
        var sharing: SharingFigures? { statistics?.sharing }

        init(record: GuestRecord, now: UInt64, registry: GuestRegistry, directory: StateDirectory) {
            let client = try? ControlClient(
                guest: record.name, path: directory.controlPath + "/" + record.name, seconds: 0.5)
            statistics = try? client?.statistics()
            self.record = record
            process = registry.localProcess(of: record)
            residentBytes =
                (process.flatMap { ProcessMemory(process: $0) } ?? client?.processMemory())?
                .residentBytes
            uptimeSeconds = record.uptimeSeconds(boot: now)
            let isStopped = process.map { ProcessState.isStopped($0) } ?? false
            state = isStopped ? "stopped" : record.state.rawValue
        }

        var sharedBytes: UInt64? { sharing.map { $0.sharedPages * RunChecks.pageSize } }

        var json: JSONValue {
            .object([
                ("name", .string(record.name)), ("pid", process.map { .integer(Int64($0)) } ?? .null),
                ("state", .string(state)), ("image", .string(record.image)),
                ("memory_bytes", .unsigned(record.memoryBytes)), ("resident_bytes", .optional(residentBytes)),
                ("cpus", .integer(Int64(record.cpuCount))), ("uptime_seconds", .optional(uptimeSeconds)),
                ("started_unix_ns", .unsigned(record.startedUnixNanoseconds)),
                ("guest_index", .unsigned(UInt64(record.guestIndex))),
                ("shared_bytes", .optional(sharedBytes)), ("domain", .optional(sharing?.domain)),
                ("broker_lost", .boolean(statistics?.lacksBroker ?? false)),
                ("window", .optional(sharing?.window)),
                ("confined", record.isConfined.map { .boolean($0) } ?? .null),
            ])
        }
    }

    /// With the keys of the others; what is not known is null.
    private static func json(_ record: DamagedRecord) -> JSONValue {
        let unknown = [
            "image", "memory_bytes", "resident_bytes", "cpus", "uptime_seconds", "started_unix_ns",
            "guest_index", "shared_bytes", "domain", "window", "confined",
        ]
        return .object(
            [
                ("name", .string(record.name)), ("pid", .optional(record.process.map { UInt64($0) })),
                ("state", .string("damaged")),
            ] + unknown.map { ($0, .null) })
    }

    private static func table(_ rows: [Row], _ damaged: [DamagedRecord]) -> String {
        var table = TextTable(
            [
                "NAME", "PID", "STATE", "IMAGE", "MEMORY", "RESIDENT", "SHARED", "DOMAIN", "WINDOW",
                "CONFINED", "CPUS",
                "UPTIME",
            ],
            rightAligned: ["PID", "MEMORY", "RESIDENT", "SHARED", "CPUS", "UPTIME"])
        for row in rows {
            table.add([
                row.record.name, row.process.map { "\($0)" } ?? "-", row.state,
                row.record.image,
                ByteSize.format(row.record.memoryBytes), row.residentBytes.map(ByteSize.format) ?? "-",
                row.sharedBytes.map(ByteSize.format) ?? "-", row.statistics?.domainText ?? "-",
                row.sharing?.window ?? "-", row.record.isConfined.map { $0 ? "yes" : "no" } ?? "-",
                "\(row.record.cpuCount)", row.uptimeSeconds.map(Uptime.format(seconds:)) ?? "-",
            ])
        }
        for record in damaged {
            table.add(
                [record.name, record.process.map { "\($0)" } ?? "-", "damaged"]
                    + [String](repeating: "-", count: 9))
        }
        return table.text
    }
}
