import FrameStore
import FrameIndex

/// The connections of one process, and what they cost together.
final class ProcessAccount {
    private(set) var sessions: [Session] = []
    /// The most that the process held at a time, as far as was looked; bytes.
    private var peakBytes: UInt64 = 0

    func add(_ session: Session) { sessions.append(session) }
    func remove(_ session: Session) { sessions.removeAll { $0 === session } }

    /// Lets a client's load grow as far as its process may have it.
    /// - Parameters:
    ///   - batch: what it is about to say.
    ///   - fixed: pages, instead of what follows from the size of the process.
    func giveRoom(to session: Session, for batch: StoreBatch, _ host: HostMemoryWatch, fixed: Int?) {
        guard let core = session.domain?.core else { return }
        var others = 0
        var frames = min(core.leases(of: session.name) ?? 0, core.statistics.frames)
        for other in sessions where other !== session {
            guard let core = other.domain?.core else { continue }
            others += core.load(of: other.name) + core.statistics.retired
            frames += min(core.leases(of: other.name) ?? 0, core.statistics.frames)
        }
        let wanted = others + core.load(of: session.name) + core.statistics.retired + batch.count * 2
        var allowed = fixed ?? MemoryAllowance.pages(peakBytes: peakBytes, host.shortage)
        if fixed == nil, allowed < wanted {
            peakBytes = max(peakBytes, session.peakBytes() ?? MemoryAllowance.unknownPeak)
            allowed = MemoryAllowance.pages(peakBytes: peakBytes, host.shortage)
        }
        core.setRoom(
            max(0, allowed - others), mayMakeFrames: frames + batch.count <= host.frames, of: session.name)
    }
}
