/// What `/proc/PID/stat` says of a process or a thread (proc_pid_stat(5)).
package struct ProcessStat {
    package let name: String
    /// The fields behind the name: the state, the parent, ...
    package let fields: [Substring]

    /// Reads the line. The name may hold anything, parentheses too.
    package init?(_ line: String) {
        guard let open = line.firstIndex(of: "("), let close = line.lastIndex(of: ")"), open < close else {
            return nil
        }
        name = String(line[line.index(after: open)..<close])
        fields = line[line.index(after: close)...].split { $0 == " " || $0 == "\n" }
    }

    /// Asks about a process; nil when there is none.
    package init?(process: Int32) {
        guard let line = SystemCall.text(of: "/proc/\(process)/stat") else { return nil }
        self.init(line)
    }
}
