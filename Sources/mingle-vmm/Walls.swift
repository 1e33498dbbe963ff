import Confinement
import LinuxHost
import Sharing

/// What this VMM's threads are confined by; nothing, with `--confine off`.
final class Walls: Sendable {
    private let confinement: Confinement?
    /// Whether threads are enlisted, for `debug`.
    private let enlists: Bool
    #if DEBUG
        private let attempt: Attempt?
    #endif

    /// Before there are other threads.
    init(_ options: Options) throws(ConfinementError) {
        confinement = options.isConfined ? try Confinement() : nil
        enlists = options.controlPath != nil
        #if DEBUG
            attempt = options.sharing.injection?.attempt.flatMap { Attempt($0) }
        #endif
    }

    var isConfined: Bool { confinement != nil }

    /// The calling thread has opened what it needs.
    func enter(_ kind: ThreadKind, name: String? = nil) throws(LinuxError) {
        if enlists { OwnThreads.enlist(name ?? (kind == .sharing ? "scanner" : kind.rawValue)) }
        if kind == .main {
            // What a shell, say, had open is nothing that a guest should find.
            if isConfined { HostProcess.closeInherited() }
            try confinement?.enterLast(.main)
        } else {
            try confinement?.enter(kind)
        }
        #if DEBUG
            if attempt?.kind == kind { attempt?.make() }
        #endif
    }
}
