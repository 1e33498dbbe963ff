import CLinux
import FoundationEssentials
import Glibc

/// Measures Mingle from outside, as its users see it. Prints tables; docs/benchmarks.md holds some.
@main
struct Bench {
    static let usage = """
        usage: mingle-bench guests [--count N] [--kernel KERNEL]    N guests at once: times and memory
               mingle-bench start [--rounds N] [--kernel KERNEL]    from `mingle` to the guest's first instruction
               mingle-bench boot [--rounds N]                       Debian's kernel to /init, against QEMU microvm
               mingle-bench together [--count N] [--rounds N] [--kernel KERNEL] [--seconds N]
                                        N guests at once: until the last is up, sharing off, KSM, Mingle
               mingle-bench sharing [--cases LIST] [--rounds N] [--guests N] [--memory MIB] [--share-cpu PERCENT]
                                    [--ksm-seconds N] [--linux-seconds N] [--image FILE] [--json FILE]
                                        Mingle's merging, KSM (root) and none side by side
        LIST: identical,shifted,scattered,zero-heavy,unique,cpu,memory,churn,cow,write,sweep,remap (all of these if
              there is none) and, where Linux guests run, linux,linux-data.
        KERNEL is what `mingle run --kernel` takes: debian, payload:NAME, a file.
        """

    static func main() {
        var words = CommandLine.arguments.dropFirst()
        let verb = words.popFirst()
        if verb == "sharing" { return sharing(Array(words)) }
        if verb == "map-store", let path = words.popFirst(),
            let parent = words.popFirst().flatMap({ pid_t($0) })
        {
            do { return try EngineSpeed.mapStore(path: path, parent: parent) } catch { fail("\(error)", 1) }
        }
        var numbers = ["--count": 4, "--rounds": 8, "--seconds": 30]
        var kernel = "debian"
        while let option = words.popFirst(), let value = words.popFirst() {
            if option == "--kernel" {
                kernel = value
            } else if numbers[option] != nil, let number = Int(value), (1...1000).contains(number) {
                numbers[option] = number
            } else {
                fail(usage, 64)
            }
        }
        let rounds = numbers["--rounds"] ?? 1
        do {
            let programs = try Programs()
            defer { programs.remove() }
            switch verb {
            case "guests": try GuestsBenchmark.run(programs, count: numbers["--count"] ?? 1, kernel: kernel)
            case "start": try StartBenchmark.run(programs, rounds: rounds, kernel: kernel)
            case "boot": try BootBenchmark.run(programs, rounds: rounds)
            case "together":
                // What density calls the stock Debian kernel.
                try TogetherBenchmark(
                    programs: programs, count: numbers["--count"] ?? 1,
                    image: kernel == "debian" ? "linux" : kernel, watch: numbers["--seconds"] ?? 30
                ).run(rounds: rounds)
            default:
                programs.remove()
                fail(usage, 64)
            }
        } catch { fail("mingle-bench: \(error)", 1) }
    }

    private static func sharing(_ words: [String]) {
        guard let options = SharingOptions(words) else { fail(usage, 64) }
        do {
            let programs = try Programs()
            defer { programs.remove() }
            let isComplete = try SharingBenchmark(programs: programs, options: options, words: words).run()
            if isComplete { return }
        } catch let error as Interrupted {
            fail("mingle-bench: ended by signal \(error.signal)", 128 + error.signal)
        } catch { fail("mingle-bench: \(error)", 1) }
        exit(1)
    }

    private static func fail(_ text: String, _ status: Int32) -> Never {
        _ = Array((text + "\n").utf8).withUnsafeBytes { write(2, $0.baseAddress, $0.count) }
        exit(status)
    }
}
