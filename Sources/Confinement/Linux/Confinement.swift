internal import CLinux
public import LinuxHost
internal import Synchronization

/// Why a VMM cannot be confined.
public enum ConfinementError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The kernel has no filters of system calls that tell what they refuse (Linux 4.14, CONFIG_SECCOMP_FILTER).
    case noFilters
    case system(LinuxError)

    public var description: String {
        switch self {
        case .noFilters:
            "this kernel cannot filter system calls (CONFIG_SECCOMP_FILTER), so that nothing would keep a guest that breaks out "
                + "of its VMM from this user's files: use such a kernel, or --confine off for guests that are trusted"
        case .system(let error): "the VMM cannot be confined: \(error)"
        }
    }
}

/// What a kernel can enforce.
public struct ConfinementAbility: Equatable, Sendable {
    /// Filters of system calls.
    public var filters: Bool
    /// The version of Landlock's interface; 0 without it.
    public var landlock: Int

    public init(filters: Bool, landlock: Int) { (self.filters, self.landlock) = (filters, landlock) }

    /// Of this kernel, for this process.
    public static var ofHost: ConfinementAbility {
        ConfinementAbility(
            filters: mingle_can_filter() != 0, landlock: max(0, Int(mingle_landlock_version())))
    }
}

/// The walls of a VMM: made once, before there are other threads, and entered by each thread by itself. From then on the thread
/// asks the kernel for what ``SystemCallTable`` lists and for nothing else. There is no way back.
///
///     made --> every other thread: opens what it needs, enters --> the main thread enters --> images are read --> the guest runs
///
/// A filter holds for the thread that installs it. Threads that are made later would inherit it, but none may be made.
public final class Confinement: Sendable {
    private let process = UInt32(HostProcess.number)
    /// Of each kind that a thread has entered, for the next of its kind: each thread assembles its own, while others do theirs.
    private let programs = Mutex<[ThreadKind: [FilterInstruction]]>([:])
    /// Without Landlock, nil: the filters allow no path anyway.
    private let rules: OwnedDescriptor?

    /// Gives up what no thread needs, for the whole process: new privileges and core files.
    public init() throws(ConfinementError) {
        let ability = ConfinementAbility.ofHost
        guard ability.filters else { throw .noFilters }
        do throws(LinuxError) {
            // PR_SET_NO_NEW_PRIVS (include/uapi/linux/prctl.h)
            try checked(mingle_prctl(38, 1), "PR_SET_NO_NEW_PRIVS")
            try checked(mingle_no_core(), "RLIMIT_CORE")
            try checked(mingle_catch_refusals(), "SIGSYS")
            rules =
                ability.landlock > 0
                ? OwnedDescriptor(
                    adopting: try checked(
                        mingle_landlock_nothing(Int32(ability.landlock)), "landlock_create_ruleset")) : nil
        } catch { throw .system(error) }
    }

    /// The calling thread is confined from now on.
    public func enter(_ kind: ThreadKind) throws(LinuxError) {
        unsafe mingle_name_thread_kind(kind.label)
        let instructions = instructions(of: kind)
        // Of a VMM that root started, too.
        try checked(mingle_drop_capabilities(), "capset")
        if let number = rules.number { try checked(mingle_landlock_enter(number), "landlock_restrict_self") }
        let program = instructions.map {
            sock_filter(code: $0.code, jt: $0.whenTrue, jf: $0.whenFalse, k: $0.operand)
        }
        // SAFETY: the array is alive for the call, which copies it.
        try checked(unsafe mingle_filter_thread(program, program.count), "seccomp", kind.rawValue)
    }

    private func instructions(of kind: ThreadKind) -> [FilterInstruction] {
        if let known = programs.withLock({ $0[kind] }) { return known }
        let made = FilterProgram(SystemCallTable.rules(of: kind), process: process).instructions
        programs.withLock { $0[kind] = made }
        return made
    }

    /// The calling thread is the last to enter. Nothing of this process shows in /proc to others of its user any more, nor can
    /// they trace it; and from now on nobody here names a path.
    public func enterLast(_ kind: ThreadKind) throws(LinuxError) {
        // PR_SET_DUMPABLE. Not before: what a process that is not dumpable has in /proc belongs to root.
        try checked(mingle_prctl(4, 0), "PR_SET_DUMPABLE")
        PathAccess.end()
        try enter(kind)
    }
}

extension Optional where Wrapped == OwnedDescriptor {
    /// Its number.
    fileprivate var number: Int32? {
        switch self {
        case .some(let descriptor): descriptor.number
        case .none: nil
        }
    }
}

extension ThreadKind {
    /// For the handler of a refused call: bytes that are there as long as the process.
    @unsafe fileprivate var label: UnsafePointer<CChar> {
        let text: StaticString =
            switch self {
            case .main: "main"
            case .vcpu: "vcpu"
            case .sharing: "sharing"
            case .prices: "prices"
            }
        // SAFETY: a static string is NUL-terminated and never goes.
        return unsafe UnsafeRawPointer(text.utf8Start).assumingMemoryBound(to: CChar.self)
    }
}
