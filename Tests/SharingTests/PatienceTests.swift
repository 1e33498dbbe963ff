@testable import SharingTestKit
@testable import FrameStore
import GuestMemory
import Testing

@testable import Sharing
import FrameIndex

/// What takes time or several rounds: quiet and busy guests, the audit, frames without company, stray news.
@Suite struct PatienceTests {
    private func makeRun(
        pages: Int = 24, _ policy: @escaping @Sendable (inout SharingPolicy) -> Void = { _ in }
    ) throws -> ModelRun {
        try ModelRun.ofTwo {
            $0.pages = pages
            $0.options.constantHash = false
            $0.policy = policy
        }
    }

    @Test func pagesMustHaveBeenQuietForLongEnough() throws {
        let run = try makeRun { $0.quietTime = 1000 }
        let engine = try #require(run.member(0)).engine
        try run.fill(0, 0..<4)
        try run.pass(0)
        // Cleared and watched; nothing is looked at before the time is over.
        for _ in 0..<9 {
            try run.pass(0, after: 100)
            #expect(engine.statistics.pagesHashed == 0)
        }
        try run.perform(.write(0, page: 2, half: 1, value: 5))
        try run.pass(0, after: 99)
        #expect(engine.statistics.pagesHashed == 0)
        try run.pass(0, after: 1)
        #expect(engine.statistics.pagesHashed == 3, "but for the page that was written")
        try run.perform(.write(0, page: 5, half: 0, value: 9))
        try run.pass(0, after: 1000)
        for _ in 0..<9 {
            try run.pass(0, after: 100)
            #expect(engine.statistics.pagesHashed == 3)
        }
        try run.pass(0, after: 100)
        #expect(engine.statistics.pagesHashed > 3)
        #expect(run.world.violations.isEmpty)
    }

    @Test func aBusyGuestIsLeftAloneAndThenShared() throws {
        let run = try makeRun(pages: 1600) { $0.busyPatience = 350 }
        let quiet = 1560..<1600
        // The log begins: what is written from then on counts.
        for guest in 0...1 { try run.pass(guest) }
        for guest in 0...1 { try run.fill(guest, quiet) }
        for _ in 0..<3 { try run.pass(1) }
        let member = try #require(run.member(0))
        // Each time as many pages more are written: hardly anything is cleared, nothing is looked at.
        for round in 0..<4 {
            try run.fill(0, round * 260..<round * 260 + 260)
            try run.pass(0, after: 100)
            #expect(member.engine.tracker.busySince != nil)
            #expect(member.engine.statistics.pagesHashed == 0, "round \(round)")
            // All of them in one block.
            #expect(quiet.count { !member.guest.log[$0] } == round + 1, "round \(round): but for sentinels")
        }
        // It is as busy still, and patience is over: what stays clean is shared.
        for round in 4..<6 {
            try run.fill(0, round * 260..<round * 260 + 260)
            try run.pass(0, after: 100)
            #expect(member.engine.tracker.busySince == nil)
        }
        #expect(member.mappedFrames == Array(quiet))
        #expect(run.world.violations.isEmpty)
    }

    /// What was written while nobody looked, for however long, says nothing of how busy the guest is.
    @Test func whatWasWrittenLongAgoIsNotTakenForWork() throws {
        let run = try makeRun(pages: 640) { $0.busyPatience = 1_000_000_000 }
        let engine = try #require(run.member(0)).engine
        run.world.time += 3 * engine.policy.longestInterval
        try run.fill(0, 0..<400)
        try run.pass(0)
        #expect(engine.tracker.busySince == nil)
        try run.pass(0, after: 10)
        #expect(engine.statistics.pagesHashed == 400, "nothing was written between the two passes")
        // What is written from one look to the next does.
        try run.fill(0, 0..<400, base: 500)
        try run.pass(0, after: 10)
        #expect(engine.tracker.busySince != nil)
        #expect(try run.run([]) == nil)
    }

    @Test func aGuestThatRestsIsSharedBeforePatienceIsOver() throws {
        let run = try makeRun(pages: 640) { $0.busyPatience = 1_000_000 }
        for guest in 0...1 { try run.pass(guest) }
        for guest in 0...1 { try run.fill(guest, 0..<400) }
        for guest in 0...1 { try run.pass(guest, after: 10) }
        let member = try #require(run.member(0))
        #expect(member.engine.tracker.busySince != nil)
        // Sentinels are clean now, but not looked at before the pages around them: that would make pieces.
        for guest in 0...1 { try run.pass(guest, after: 10) }
        #expect(member.engine.tracker.busySince == nil && member.engine.statistics.pagesHashed == 0)
        for guest in 0...1 { try run.pass(guest, after: 10) }
        #expect(member.engine.statistics.pagesHashed == 400)
        for _ in 0..<2 { for guest in 0...1 { try run.pass(guest, after: 10) } }
        #expect(member.mappedFrames.count == 400)
    }

    /// The guest keeps a pass's time busy with its first pages; the others have their turn all the same.
    @Test func aPassGoesOnWhereTheLastOneStopped() throws {
        let run = try makeRun(pages: 1024) { $0.faultsPerSecond = .infinity }
        let engine = try #require(run.member(0)).engine
        try run.fill(0, 512..<1024)
        for round in 0..<24 {
            // What was written before the last pass is clean now, and as much as a pass has time for.
            let first = round % 2 * 256
            try run.fill(0, first..<first + 256, base: UInt64(10_000 + round * 1000))
            run.world.time += 10
            try run.perform(.pass(0, budget: 1, meanwhile: []))
        }
        #expect((512..<1024).allSatisfy { engine.pages.isKnown($0) })
    }

    /// KVM never reports a write to a merged page: only the audit sees that the page is private, and gives back its reference.
    @Test func theAuditFindsWhatWasNeverReported() throws {
        let run = try makeRun()
        for guest in 0...1 { try run.fill(guest, 0..<20) }
        for _ in 0..<4 { for guest in 0...1 { try run.pass(guest) } }
        let member = try #require(run.member(0))
        #expect(member.mappedFrames.count == 20)
        member.guest.losesNextReport = true
        try run.perform(.write(0, page: 17, half: 0, value: 4711))
        #expect(!member.guest.losesNextReport && !member.guest.log[17])
        // A quarter of the pages each pass.
        for _ in 0..<5 { try run.pass(0) }
        #expect(member.engine.pages.kind(17) != .mapped)
        #expect(member.stores.last?.leases == 19 && member.mappedFrames.count == 19)
        #expect(member.engine.statistics.pagesUnsharedTotal == 1)
        #expect(run.world.violations.isEmpty)
    }

    /// A guest's read of a hole gives it memory, and nobody reports that: the audit finds it, and it becomes the page of zeros.
    @Test func theAuditFindsHolesThatWereRead() throws {
        let run = try makeRun { $0.arrangementGain = 0 }
        try run.fill(0, 0..<4)
        for _ in 0..<12 { try run.pass(0) }
        let member = try #require(run.member(0))
        for page in [9, 10, 20] {
            try run.perform(.read(0, page: page))
            #expect(member.guest.home[page] != nil && !member.guest.log[page])
        }
        // All of it is looked at in so many passes, and in one more what was found is.
        for _ in 0..<member.engine.policy.auditPasses + 2 { try run.pass(0) }
        for page in [9, 10, 20] {
            #expect(member.guest.home[page] == nil && member.engine.pages.kind(page) == .zero)
        }
        #expect(member.engine.statistics.pagesZero == 3)
        // When sharing is turned on again, nobody waits for the audit.
        var policy = member.engine.policy
        policy.isEnabled = false
        member.engine.setPolicy(policy)
        while member.engine.goHome(limit: 8) {}
        for page in [9, 10, 20] { try run.perform(.read(0, page: page)) }
        policy.isEnabled = true
        member.engine.setPolicy(policy)
        for _ in 0..<3 { try run.pass(0) }
        #expect(member.engine.statistics.pagesZero == 3)
        #expect(run.world.violations.isEmpty)
    }

    /// A guest that is not looked at pays nothing; when the log begins, what has memory by then is watched like what is
    /// reported later, and the first write to any other page is reported.
    @Test func theLogBeginsWithTheFirstPass() throws {
        let run = try makeRun()
        for guest in 0...1 { try run.fill(guest, 0..<20) }
        let member = try #require(run.member(0))
        #expect(member.guest.writeFaults == 0)
        // Written while the log begins: before the untouched pages are cleared in it, and after.
        member.guest.hook = { step in
            if step == "clear" { member.guest.guestWrites(22, half: 0, 5) }
        }
        try member.pass(run.world)
        member.guest.hook = { _ in }
        #expect(member.engine.pages.kind(22) == .home && member.engine.pages.kind(23) == .untouched)
        try run.perform(.write(0, page: 23, half: 0, value: 7))
        for _ in 0..<4 { for guest in 0...1 { try run.pass(guest) } }
        #expect(member.engine.pages.kind(23) == .home)
        #expect(member.mappedFrames == Array(0..<20))
        #expect(run.world.violations.isEmpty)
    }

    /// Memory that is found, and that no harvest reported, may just have been written.
    @Test func whatIsFoundIsNotLookedAtBeforeTheNextHarvest() throws {
        let run = try makeRun()
        let member = try #require(run.member(0))
        try member.pass(run.world)
        member.guest.hook = { step in
            if step == "clear" { for page in 8..<12 { member.guest.guestWrites(page, half: 0, 0) } }
        }
        try member.pass(run.world)
        member.guest.hook = { _ in }
        for page in 8..<12 { #expect(member.engine.pages.kind(page) == .home) }
        #expect(member.engine.statistics.pagesHashed == 0)
        for _ in 0..<3 { try run.pass(0) }
        #expect(member.engine.statistics.pagesZero == 4)
        #expect(run.world.violations.isEmpty)
    }

    /// What was written while sharing was off says nothing of what is written while pages are watched.
    @Test func whatWasWrittenWhileOffIsNotVolatile() throws {
        let run = try makeRun { $0.arrangementGain = 0 }
        try run.fill(0, 0..<8)
        for _ in 0..<4 { try run.pass(0) }
        let member = try #require(run.member(0))
        let budget = member.engine.tracker.plan.budget
        var policy = member.engine.policy
        policy.isEnabled = false
        member.engine.setPolicy(policy)
        try run.fill(0, 4..<12, base: 300)
        policy.isEnabled = true
        member.engine.setPolicy(policy)
        try run.pass(0, after: 3 * policy.longestInterval)
        for page in 4..<12 {
            #expect(member.engine.tracker.isWatched(page) && member.engine.tracker.volatility.wait(page) == 0)
        }
        #expect(member.engine.tracker.plan.budget >= budget)
        #expect(run.world.violations.isEmpty)
    }

    /// What others publish is merged between passes, too: nothing is harvested or looked at then.
    @Test func newsIsHeardBetweenPasses() throws {
        let run = try makeRun()
        for guest in 0..<2 { try run.fill(guest, 0..<8) }
        let members = try (0..<2).map { try #require(run.member($0)) }
        for guest in 0..<2 { try run.pass(guest) }
        try run.pass(0)
        #expect((0..<8).allSatisfy { members[0].engine.pages.kind($0) == .home }, "only sighted yet")
        try run.pass(1)
        let before = members[0].engine.statistics
        // One of them is written before the news comes, and keeps what was written.
        try run.perform(.write(0, page: 3, half: 0, value: 5))
        try run.perform(.hear(0, meanwhile: []))
        #expect(members[0].engine.pages.count(of: .mapped) == 7)
        let after = members[0].engine.statistics
        #expect(after.fullScans == before.fullScans && after.pagesHashed == before.pagesHashed)
        #expect(after.mismatches == before.mismatches + 1 && after.pagesMapped == 7)
        // Held: what comes waits until it is not. (Off, everything goes home.)
        for guest in 0..<2 { try run.fill(guest, 16..<20) }
        for guest in [0, 1, 0, 1] { try run.pass(guest) }
        var policy = members[0].engine.policy
        policy.holdsMerges = true
        members[0].engine.setPolicy(policy)
        try run.perform(.hear(0, meanwhile: []))
        #expect(members[0].engine.statistics.pagesMerged == after.pagesMerged)
        policy.holdsMerges = false
        members[0].engine.setPolicy(policy)
        try run.perform(.hear(0, meanwhile: []))
        #expect(members[0].engine.statistics.pagesMerged == after.pagesMerged + 4)
        #expect(run.world.violations.isEmpty)
    }

    /// A guest that rests costs its store nothing, unless there is something to hear; but for a word now and then.
    @Test func whoHasNothingToSaySaysNothing() throws {
        let run = try makeRun { $0.arrangementGain = 0 }
        for guest in 0...1 { try run.fill(guest, 0..<6) }
        for _ in 0..<12 { for guest in 0...1 { try run.pass(guest) } }
        let store = try #require(run.member(0)?.stores.last)
        let settled = store.exchanges
        for _ in 0..<50 { try run.pass(0) }
        #expect(store.exchanges == settled)
        // What another guest does with contents of its own is nothing to hear of.
        try run.perform(.fill(1, page: 12, count: 1, first: 1, second: 2))
        for _ in 0..<4 { for guest in 0...1 { try run.pass(guest) } }
        #expect(store.exchanges == settled)
        // Six minutes at the slowest pace: the store hears of it now and then, between passes as in them.
        let member = try #require(run.member(0))
        let interval = member.engine.policy.longestInterval
        var (last, longest, before) = (run.world.time, UInt64(0), store.exchanges)
        for _ in 0..<180 {
            try run.pass(0, after: interval)
            member.engine.keepInTouch()
            guard store.exchanges > before else { continue }
            longest = max(longest, run.world.time - last)
            (last, before) = (run.world.time, store.exchanges)
        }
        #expect(longest <= StoreLink.silenceLimit)
        #expect(store.exchanges - settled <= 26)
        // News is taken by the next pass.
        try run.perform(.fill(0, page: 20, count: 1, first: 8, second: 9))
        for _ in 0..<6 { try run.pass(0) }
        try run.perform(.fill(1, page: 20, count: 1, first: 8, second: 9))
        for _ in 0..<4 { try run.pass(1) }
        try run.pass(0)
        #expect(run.member(0)?.mappedFrames == [0, 1, 2, 3, 4, 5, 20])
        #expect(try run.run([]) == nil)
    }

    @Test func framesWithoutCompanyGoHome() throws {
        let run = try makeRun()
        for guest in 0...1 { try run.fill(guest, 0..<6) }
        for _ in 0..<4 { for guest in 0...1 { try run.pass(guest) } }
        let member = try #require(run.member(0))
        // With company they stay, however long.
        for _ in 0..<20 { try run.pass(0) }
        #expect(member.mappedFrames.count == 6)
        try run.perform(.exit(1))
        // One look is not enough: a guest that has just gone may be followed by another of its kind.
        try run.pass(0)
        #expect(member.mappedFrames.count == 6)
        for _ in 0..<10 { try run.pass(0) }
        #expect(member.mappedFrames.isEmpty)
        #expect((0..<6).allSatisfy { member.guest.backing[$0] == .home })
        #expect(member.engine.statistics.pagesRehomed == 6 && member.stores.last?.leases == 0)
        member.engine.sendKeepalive()
        run.world.domains[0].settle()
        #expect(run.world.domains[0].core.statistics.frames == 0)
        // At home they are to be found again.
        try run.perform(.start(1))
        try run.fill(1, 0..<6)
        for _ in 0..<4 { for guest in 0...1 { try run.pass(guest) } }
        #expect(member.mappedFrames.count == 6)
        #expect(run.world.violations.isEmpty)
    }

    /// While memory is short, or the guest busy, nothing goes home, and the store neither expects it nor asks for it.
    @Test(arguments: [false, true]) func framesWithoutCompanyStayForNow(isBusy: Bool) throws {
        let run = try makeRun(pages: 3000) {
            $0.arrangementGain = 0
            $0.busyPatience = .max / 2
        }
        for guest in 0...1 { try run.fill(guest, 0..<6) }
        for _ in 0..<8 { for guest in 0...1 { try run.pass(guest) } }
        let member = try #require(run.member(0))
        let engine = member.engine
        func change(_ isSo: Bool) {
            var policy = engine.policy
            policy.holdsMerges = isSo && !isBusy
            engine.setPolicy(policy)
        }
        var written = 100
        func passes(_ count: Int) throws {
            for _ in 0..<count {
                if isBusy { try run.fill(0, written..<written + 260) }
                written += 260
                try run.pass(0)
                #expect(engine.tracker.isBusy == isBusy)
            }
        }
        change(true)
        try run.perform(.exit(1))
        try passes(1)
        let told = try #require(member.stores.last).exchanges
        try passes(10)
        #expect(member.mappedFrames.count == 6 && engine.pages.singleMapperCount == 0)
        #expect(member.stores.last?.exchanges == told)
        change(false)
        for _ in 0..<engine.policy.singleMapperRounds + 2 { try run.pass(0) }
        #expect(member.mappedFrames.isEmpty)
        #expect(run.world.violations.isEmpty)
    }

    /// News of a page that the store does not know of: there is no reference for it.
    @Test func strayNewsIsNotTaken() throws {
        let run = try makeRun()
        for guest in 0...1 { try run.fill(guest, 0..<1) }
        for _ in 0..<4 { for guest in 0...1 { try run.pass(guest) } }
        let member = try #require(run.member(0))
        guard case .frame(_, let location) = member.guest.backing[0] else {
            Issue.record("page 0 is not shared")
            return
        }
        // The same content, written a moment ago.
        try run.perform(.fill(0, page: 9, count: 1, first: 100, second: 100_000))
        #expect(member.guest.oracle[9] == member.guest.oracle[0])
        let store = try #require(member.stores.last)
        store.strayNews = [StoreReply.Promotion(page: 9, location: location)]
        try run.pass(0)
        #expect(store.strayNews.isEmpty)
        #expect(member.mappedFrames == [0] && store.leases == 1)
        #expect(try run.run([]) == nil)
    }
}
