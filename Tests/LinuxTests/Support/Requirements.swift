import Hypervisor
import TestSupport
import Testing

/// What a test needs of its host. `MINGLE_REQUIRE=kvm,linux` makes a lack a failure instead of a skip.
enum Requirement: String, CaseIterable, Sendable {
    case kvm, linux

    private static let problems: [Requirement: String] = {
        var problems: [Requirement: String] = [:]
        for requirement in allCases { problems[requirement] = requirement.findProblem() }
        return problems
    }()

    /// Why it is not met; nil when it is.
    var problem: String? { Self.problems[self] }
    var isDemanded: Bool { Demands.include(rawValue) }

    private func findProblem() -> String? {
        do {
            switch self {
            case .kvm: _ = try KVMSystem()
            case .linux:
                guard try HostProbe.ring0().runsNatively else {
                    return
                        "this host's KVM emulates kernel-mode code: run scripts/linux-tests, which uses the lab"
                }
            }
            return nil
        } catch { return "\(error)" }
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

/// The root of everything that boots Linux: one test at a time, as two guests on two cores only disturb each other.
@Suite("Linux guests", .serialized, .needs(.kvm), .needs(.linux))
enum LinuxGuests {}
