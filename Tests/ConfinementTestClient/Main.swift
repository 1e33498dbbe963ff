import CLinux
import Confinement
import Glibc
import LinuxHost

/// `confinement-test-client KIND|landlock|none NUMBER [ARGUMENT...]`: confines itself as a thread of that kind, makes that system
/// call, and prints what came of it: a result, or -errno. `own` as an argument is the number of this process.
@main
struct Client {
    static func main() {
        let words = CommandLine.arguments
        guard words.count > 2, let number = Int(words[2]) else { exit(64) }
        var values = words.dropFirst(3).map { $0 == "own" ? Int(getpid()) : Int($0) ?? 0 }
        values += Array(repeating: 0, count: max(0, 6 - values.count))
        #if DEBUG
            do {
                if let kind = ThreadKind(rawValue: words[1]) {
                    let walls = try Confinement()
                    // For the rest of the process: not every kind may close what it holds.
                    _ = Unmanaged.passRetained(walls)
                    try walls.enterLast(kind)
                } else if words[1] == "landlock" {
                    _ = mingle_prctl(38, 1)
                    let rules = try checked(mingle_landlock_nothing(mingle_landlock_version()), "landlock")
                    try checked(mingle_landlock_enter(rules), "landlock")
                }
                let path = strdup("/proc/self/status")
                // A path, where a pointer is asked for.
                values = values.map { $0 == Int.max ? Int(bitPattern: path) : $0 }
                let result = mingle_raw_call(
                    number, values[0], values[1], values[2], values[3], values[4], values[5])
                var line = Array("\(result)\n".utf8)
                _ = write(1, &line, line.count)
                exit(0)
            } catch {
                HostIO.tell("\(error)\n")
                exit(1)
            }
        #else
            exit(2)
        #endif
    }
}
