// The algorithm, once; every other text refers to this one.
//
// A pass:
//  1. Harvest: which pages were written (KVM's dirty log and the VMM's own bitmap). Clear those that are to be watched:
//     a page that was written while it was watched is left alone for twice as long as the last time, and so are its
//     neighbours where many were (`DirtyTracker`, `WatchPlan`).
//  2. Account: merged pages that were written have a private copy now, which the page map proves. Their references go
//     back to the store (`Auditor`).
//  3. Look: pages that were watched and stayed clean are inspected: all zeros, all words equal, or a hash (`Inspector`).
//  4. Ask the store, in batches: a frame (with a reference counted), publish, or recorded for others to find (`StoreLink`).
//  5. Merge, in windows: no writer can change the pages; compare all bytes; replace the mapping; let writers go on.
//     Then punch the home pages that nobody can see any more (`Merger`).
//  6. Promotions, if the store says that there are any: pages that this guest sighted first and somebody else published.
//  7. Arrange: when the guest rests, stretches that were merged bit by bit become few mappings (`Arranger`).
//
// Order matters in three places. Harvest, clear, *then* look: a write after the clear is reported again. The reference is
// counted *before* the mapping is made, and given back *after* it is gone. Home is punched *after* the mapping that hides
// it is recorded.

internal import FrameStore
public import LinuxHost

extension SharingEngine {
    /// One pass, for at most so many nanoseconds of CPU time.
    public func pass(for nanoseconds: UInt64 = 50_000_000) throws(LinuxError) -> PassResult {
        guard budget.hasMemory(for: .pass) else { return putPassOff() }
        let (started, now) = (clock(), monotonicClock())
        var result = PassResult()
        merge(link.takeKept())
        switch try tracker.harvest(now) {  // 1
        case .putOff: return putPassOff()
        case .notDue: break
        case .done: result.activity = account()  // 2
        }
        link.sendRemovals(merge: merge)
        let before = result.activity
        lookAskAndMerge(&result, until: started + nanoseconds)  // 3, 4, 5
        if link.isDue(now, mayMove: mayMove) { result.activity += takePromotions() }  // 6
        result.isEager = result.activity - before >= policy.eagerFrom
        arrange(&result)  // 7
        link.sendRemovals(merge: merge)
        finish(started)
        return result
    }

    /// The store hears from us all the same, if a word can be had.
    private func putPassOff() -> PassResult {
        keepInTouch()
        return PassResult()
    }

    /// Step 2, and what goes with it: what was requested anew, what nobody reported, what is to be tried again.
    private func account() -> Int {
        let reported = auditor.account()
        tracker.watchAllIfRequested()
        let found = auditor.audit()
        tracker.watchPostponed(number)
        return reported + found
    }

    /// Steps 3 to 5, in chunks, from where the last pass stopped. What is to be looked at stays marked while merges are held.
    private func lookAskAndMerge(_ result: inout PassResult, until deadline: UInt64) {
        if tracker.isBusy || policy.holdsMerges { return }
        var scan = DirtyTracker.Scan()
        while let chunk = tracker.nextCleanPages(&scan) {
            result.activity += chunk.count
            var findings = inspector.inspect(chunk)
            merger.mergeZeros(findings.zero)
            if link.isConnected {
                inspector.splitUniform(&findings)
                link.lookUp(findings, inspector, merge: merge)
            }
            if fatal != nil { return }
            if clock() >= deadline || conditions.isTooMuch {
                result.isUnfinished = tracker.leave(scan)
                return
            }
        }
    }

    /// Maps what the store counts references for already; if the store is lost, they are nobody's.
    func merge(_ hits: [FrameHit]) {
        if !hits.isEmpty, link.isConnected { merger.merge(hits) }
    }

    /// Whether pages would be taken home now that are better off there.
    private var mayMove: Bool { policy.isEnabled && !policy.holdsMerges && !tracker.isBusy }

    /// Step 6: asks for promotions, until there are none.
    /// - Returns: how many came.
    private func takePromotions() -> Int {
        var taken = 0
        while let reply = link.ask(mayMove ? StoreBatch() : .forPromotionsOnly) {
            let hits = link.hits(of: reply.promotions)
            taken += hits.count
            merge(hits)
            if mayMove {
                rehomer.noteSingleMappers(reply.singleMappers)
                relocate(reply.moved)
            }
            if !reply.hasMore { break }
        }
        return taken
    }

    /// Pages follow their frames to other places; the store is told which did.
    private func relocate(_ moved: [Relocation]) {
        if moved.isEmpty { return }
        let moves = merger.relocate(moved)
        moves.suspects.forEach(auditor.recheck)
        if moves.done.isEmpty { return }
        arranger.noteChange(number)
        link.acknowledge(moves.done, merge: merge)
    }

    /// Step 7. Before it, pages of a lost store are brought to an end.
    private func arrange(_ result: inout PassResult) {
        if result.activity > policy.arrangementCalm { arranger.noteChange(number) }
        if policy.holdsMerges { return }
        if link.isConnected, rehomer.settleOrphans() { link.tellMovedOver() }
        if !tracker.isBusy, !result.isUnfinished, arranger.arrange(number, activity: result.activity) {
            // The rest soon: until then every pass has the whole plan to make.
            result.activity = max(result.activity, SharingPace.quick)
        }
    }

    private func finish(_ started: UInt64) {
        budget.recountIfDue()
        journal.flush()
        number += 1
        journal.count { $0.fullScans += 1 }
        journal.passed()
        updateStatistics(since: started)
    }

    /// - Parameter started: by the clock of CPU time.
    func updateStatistics(since started: UInt64) {
        let spent = clock() - started
        journal.count { $0.cpuNanoseconds += spent }
        refreshStatistics()
    }
}
