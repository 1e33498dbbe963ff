import CLinux
import Confinement
import Foundation
import LinuxHost
import TestSupport
import Testing

/// What the kernel makes of the filters, in processes of their own.
@Suite("Confined threads, by the kernel")
struct KernelTests {
    private static let client: String = {
        let own = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? ""
        return (own as NSString).deletingLastPathComponent + "/confinement-test-client"
    }()
    /// Stands for the path of a file that everybody may read.
    private static let path = Int.max

    private static func run(_ kind: String, _ number: UInt32, _ arguments: [Int]) throws -> (
        status: Int32, output: String, errors: String
    ) {
        let folder = try TemporaryDirectory()
        let words = [kind, "\(number)"] + arguments.map { $0 == 4711 ? "own" : "\($0)" }
        let child = try ChildProcess(
            client, words, streams: [.nothing, .into(folder.path("output")), .into(folder.path("errors"))])
        let status = try child.wait(within: 30)
        return (status, folder.text("output"), folder.text("errors"))
    }

    /// Arguments of calls that come back at once, whatever they are made with: what is asked for fails, and is not refused.
    private static func harmless(_ rule: SystemCallRule) -> [Int]? {
        var arguments = [-1, 0, 0, 0, 0, 0]
        switch rule.call {
        // They do not come back.
        case .exit, .exit_group, .rt_sigreturn: return nil
        case .poll: arguments = [0, 0, 0, 0, 0, 0]
        case .futex: arguments = [0, -1, 0, 0, 0, 0]
        case .brk: arguments = [0, 0, 0, 0, 0, 0]
        case .getrandom, .mincore, .madvise, .munmap, .mremap: arguments = [1, 0, 0, 0, 0, 0]
        case .rt_sigprocmask: arguments = [0, 0, 0, 0, 0, 0]
        default: break
        }
        for check in rule.checks {
            switch check {
            case .isOne(let values, let argument): arguments[argument] = Int(values[0])
            case .lacks(_, let argument): arguments[argument] = 0
            case .isNull(let argument): arguments[argument] = 0
            case .isThisProcess(let argument): arguments[argument] = 4711
            }
        }
        return arguments
    }

    @Test(
        "each row's call comes back, and with another argument the process ends, its thread and call named",
        arguments: ThreadKind.allCases)
    func rows(kind: ThreadKind) throws {
        for rule in SystemCallTable.rules(of: kind) {
            guard let arguments = Self.harmless(rule) else { continue }
            let number = rule.call.rawValue
            let (status, output, errors) = try Self.run(kind.rawValue, number, arguments)
            #expect(
                status == 0 && Int(output.dropLast()) != nil, "\(kind), \(rule.call): \(status) \(errors)")
            guard let check = rule.checks.first else { continue }
            var altered = arguments
            switch check {
            case .isOne(_, let argument): altered[argument] = 0x7777_7777
            case .lacks(let bits, let argument): altered[argument] = Int(bits)
            case .isNull(let argument): altered[argument] = 8
            case .isThisProcess(let argument): altered[argument] = 1
            }
            let refused = try Self.run(kind.rawValue, number, altered)
            #expect(refused.status == 117, "\(kind), \(rule.call): \(refused)")
            #expect(
                refused.errors.contains("a thread of kind \(kind.rawValue) asked for system call \(number) "),
                "\(refused.errors)")
        }
    }

    @Test("what ends a thread or a process is allowed")
    func ends() throws {
        for kind in ThreadKind.allCases {
            #expect(try Self.run(kind.rawValue, SystemCallName.exit_group.rawValue, [7]).status == 7)
            if kind == .main { continue }
            #expect(try Self.run(kind.rawValue, SystemCallName.exit.rawValue, [7]).status == 7)
        }
    }

    @Test("a call that is in no row ends the process", arguments: ThreadKind.allCases)
    func others(kind: ThreadKind) throws {
        let openat: UInt32 = 257
        let refused = try Self.run(kind.rawValue, openat, [-100, Self.path, 0])
        #expect(refused.status == 117 && refused.output == "")
        // The control: without walls it works.
        let open = try Self.run("none", openat, [-100, Self.path, 0])
        #expect(open.status == 0 && (Int(open.output.dropLast()) ?? -1) > 2, "\(open)")
    }

    @Test(
        "Landlock alone lets nothing be opened",
        .enabled(if: ConfinementAbility.ofHost.landlock > 0, "no Landlock"))
    func landlock() throws {
        let refused = try Self.run("landlock", 257, [-100, Self.path, 0])
        #expect(refused.status == 0 && refused.output == "-13\n", "\(refused)")
        // What it does not see, and the filters do: a file's status.
        #expect(try Self.run("landlock", 21, [Self.path, 4]).output == "0\n")
    }
}
