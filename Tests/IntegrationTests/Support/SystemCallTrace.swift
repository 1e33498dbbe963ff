import Confinement
import Foundation

/// What threads asked the kernel for after they were confined, from the output of `strace -f`.
struct SystemCallTrace {
    static let strace = "/usr/bin/strace"
    /// Of each kind of thread, the names of calls.
    private(set) var calls: [ThreadKind: Set<String>] = [:]

    /// Adds the trace of one VMM.
    mutating func add(_ text: String) {
        // Who names a thread writes to a file of /proc, but to its own name with prctl(2).
        var kinds: [Substring: ThreadKind] = [:]
        var named: [Substring: Substring] = [:]
        var confined: Set<Substring> = []
        for line in text.split(separator: "\n") {
            let parts = line.split(separator: " ", maxSplits: 1, omittingEmptySubsequences: true)
            guard parts.count == 2 else { continue }
            let (thread, rest) = (parts[0], parts[1].drop { $0 == " " })
            if kinds.isEmpty { kinds[thread] = .main }
            if rest.hasPrefix("openat("), let start = rest.firstRange(of: "/proc/self/task/")?.upperBound {
                named[thread] = rest[start...].prefix { $0.isNumber }
            } else if rest.hasPrefix("write("), let other = named.removeValue(forKey: thread) {
                let name = rest.split(separator: "\"").dropFirst().first ?? ""
                kinds[other] = name.hasPrefix("vcpu") ? .vcpu : name == "scanner" ? .sharing : .prices
            }
            let call = rest.prefix { $0.isLetter || $0.isNumber || $0 == "_" }
            guard rest.dropFirst(call.count).first == "(" else { continue }
            if confined.contains(thread), let kind = kinds[thread] {
                calls[kind, default: []].insert(String(call))
            }
            if call == "seccomp", rest.contains("SET_MODE_FILTER") { confined.insert(thread) }
        }
    }
}
