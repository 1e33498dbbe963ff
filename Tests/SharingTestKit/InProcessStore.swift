public import FrameStore
public import FrameIndex
internal import GuestMemory
public import LinuxHost

/// A domain's store in this process, for tests and benchmarks: the same rules as with a broker, several clients.
public final class InProcessDomain: Sendable {
    private struct State {
        let core: FrameStoreCore
        var nextClient: UInt32 = 1
    }
    private let state: Monitor<State>

    /// - Parameter makeCore: makes the logic with its backing.
    public init(_ makeCore: @Sendable () throws(LinuxError) -> FrameStoreCore) throws(LinuxError) {
        state = Monitor(State(core: try makeCore()))
    }

    /// The numbers of the store.
    public var statistics: StoreStatistics { state.withLock { $0.core.statistics } }

    /// Works with the logic, under the lock.
    public func withCore<Result: Sendable>(_ body: (FrameStoreCore) -> Result) -> Result {
        state.withLock { body($0.core) }
    }

    fileprivate func join(pageCount: Int) -> StoreClient? {
        state.withLock { state in
            let name = StoreClient(state.nextClient)
            state.nextClient += 1
            return state.core.join(name, pageCount: pageCount) ? name : nil
        }
    }
    fileprivate func exchange(_ name: StoreClient, _ batch: StoreBatch, _ staging: StagingArea) -> StoreReply?
    {
        state.withLock { state in
            let reply = state.core.exchange(name, batch) { staging.read(slot: $0) }
            state.core.sweep(limit: 512)
            return reply
        }
    }
    fileprivate func wantsToHear(_ name: StoreClient) -> Bool {
        state.withLock { $0.core.wantsToHear(name) }
    }
    fileprivate func silence(_ name: StoreClient) { state.withLock { $0.core.silence(name) } }
    fileprivate func leave(_ name: StoreClient) {
        state.withLock { state in
            state.core.leave(name)
            while state.core.hasWork { state.core.sweep(limit: 4096) }
        }
    }
}

/// A client of an ``InProcessDomain``. One thread uses it.
public final class InProcessStore: FrameStore {
    /// What happens to an exchange.
    public enum Fate: Sendable {
        case answered
        /// Carried out at once, answered so many nanoseconds later.
        case late(UInt64)
        /// Lost before it was carried out, or after: the client cannot tell.
        case lostBefore
        case lostAfter
    }
    public let staging: StagingArea
    /// Decides the fate of each exchange, by its number from 0.
    public var fate: (Int) -> Fate = { _ in .answered }
    private let domain: InProcessDomain
    private let name: StoreClient
    private var count = 0
    private var isLost = false

    /// - Returns: nil when the domain takes no more clients, or not of this size.
    public init?(_ domain: InProcessDomain, pageCount: Int) throws(LinuxError) {
        staging = try StagingArea()
        guard let name = domain.join(pageCount: pageCount) else { return nil }
        self.domain = domain
        self.name = name
    }

    public var batchLimit: Int { FrameStoreCore.batchLimit }
    public var stagingSlots: Int { StagingArea.slots }

    public func exchange(_ batch: StoreBatch) throws(FrameStoreError) -> StoreReply {
        guard !isLost else { throw .lost("the connection was lost before") }
        let fate = fate(count)
        count += 1
        if case .lostBefore = fate { throw lose("injected, before") }
        guard let reply = domain.exchange(name, batch, staging) else {
            throw lose("the batch broke the rules")
        }
        switch fate {
        case .answered, .lostBefore: break
        case .late(let nanoseconds): Pause.sleep(nanoseconds: nanoseconds)
        case .lostAfter: throw lose("injected, after")
        }
        return reply
    }

    public func hasNotice() -> Bool { isLost || domain.wantsToHear(name) }

    private func lose(_ reason: String) -> FrameStoreError {
        isLost = true
        domain.silence(name)
        return .lost(reason)
    }

    /// As if the connection closed while the process lives on: its references stay.
    public func disconnect() { _ = lose("closed") }

    /// As if the process ended: its references go.
    public func end() {
        _ = lose("ended")
        domain.leave(name)
    }
}
