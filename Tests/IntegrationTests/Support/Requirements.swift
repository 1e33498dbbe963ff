import Hypervisor
import Sharing
import TestSupport
import Testing

/// What a test needs of its host and build. `MINGLE_REQUIRE=kvm,payloads,linux` (or others of these) makes a lack a
/// failure instead of a skip.
enum Requirement: String, CaseIterable, Sendable {
    case kvm, payloads, linux
    /// A userfaultfd that protects memory from KVM, too.
    case userfaultfd
    /// `/proc/PID/pagemap` tells frame numbers.
    case frames
    /// Programs that fail on purpose when they are told to.
    case faults

    private static let problems: [Requirement: String] = {
        var problems: [Requirement: String] = [:]
        for requirement in allCases { problems[requirement] = requirement.findProblem() }
        return problems
    }()

    /// Why it is not met, and what to do; nil when it is.
    var problem: String? { Self.problems[self] }
    var isDemanded: Bool { Demands.include(rawValue) }

    private func findProblem() -> String? {
        switch self {
        case .kvm:
            do { _ = try KVMSystem() } catch { return "\(error)" }
        case .payloads:
            if Locations.payloads == nil { return "the payloads are not built: run `make guests`" }
        case .linux:
            do {
                guard try HostProbe.ring0().runsNatively else {
                    return "this host's KVM emulates kernel-mode code: no Linux guest runs on it"
                }
            } catch { return "\(error)" }
        case .userfaultfd:
            if UserFault.open()?.ability != .protect {
                return "no userfaultfd for faults of KVM: `mingle doctor` prints the rule that allows it"
            }
        case .frames:
            if FrameNumbers.zero == nil { return "/proc/PID/pagemap hides frame numbers: run as root" }
        case .faults:
            #if !DEBUG
                return "faults on purpose exist only in debug builds: run `swift test` without -c release"
            #endif
        }
        return nil
    }
}

extension Trait where Self == ConditionTrait {
    /// Skips, with the reason, where the requirement is not met and not demanded.
    static func needs(_ requirement: Requirement) -> Self {
        .enabled(
            if: requirement.problem == nil || requirement.isDemanded,
            Comment(rawValue: requirement.problem ?? "\(requirement.rawValue): there"))
    }
}

@Suite("What MINGLE_REQUIRE demands")
struct DemandTests {
    /// Without arguments of the test's own: where nothing is demanded, that is no skip.
    @Test("is known and there") func demanded() {
        let known = Requirement.allCases.map(\.rawValue).joined(separator: ", ")
        // Others are for tests of other targets: the edge tests of SharingTests, and those of GuestImagesTests.
        for word in Demands.words where word != "edge" && word != "images" {
            let requirement = Requirement(rawValue: word)
            #expect(requirement != nil, "\(word): MINGLE_REQUIRE knows \(known)")
            #expect(requirement?.problem == nil, "\(word)")
        }
    }
}

/// The root of everything that runs guests: one at a time, since two of them on two cores only disturb each other.
@Suite("Guests on this host's KVM", .serialized, .needs(.kvm), .needs(.payloads))
enum HostKVM {}
