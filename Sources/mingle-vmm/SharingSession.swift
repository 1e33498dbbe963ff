import FrameStore
import BrokerClient
import Confinement
import GuestMemory
import LinuxHost
import Hypervisor
import VMMProtocol
import Sharing
import Synchronization

/// Sharing of this guest's memory: puts the engine, the machine and the broker together, which know nothing of each
/// other.
final class SharingSession: Sendable {
    /// How windows are kept, as it turned out.
    let window: SharingPolicy.Window
    /// Stretches may be mapped across private pages.
    let absorbsGaps: Bool
    let domain: String
    private let pageCount: Int
    private let thread: SharingThread
    private let broker: BrokerSeeker
    private let prices: PriceThread
    /// Of `--trace-share`.
    let trace: ShareTrace?

    /// - Throws: when the window asked for is not to be had, or the domain is taken by another user.
    /// - Parameters:
    ///   - traceFile: of `--trace-share`; it is emptied.
    ///   - walls: what its threads enter.
    init?(
        _ options: Options, _ machine: VirtualMachine, _ timeline: Timeline,
        traceFile: consuming OutputFile?, walls: Walls
    ) throws {
        guard options.sharing.isOn else { return nil }
        let sharing = options.sharing
        let ability = UserFault.open()?.ability
        switch sharing.window {
        case .userfaultfd where ability != .protect: throw WindowUnavailable()
        case .auto: window = ability == .protect ? .userfaultfd : .pause
        case .userfaultfd: window = .userfaultfd
        case .pause: window = .pause
        }
        absorbsGaps = ability != nil
        domain = sharing.domain ?? SharingFigures.ownDomain
        pageCount = Int(machine.memory.sizeInBytes >> Page.shift)
        var policy = SharingPolicy()
        policy.window = window
        policy.isEnabled = !sharing.waits
        policy.setShare(percent: sharing.cpuPercent)
        policy.quietTime = 200_000_000
        policy.busyPatience = 10_000_000_000
        policy.shortestInterval = 200_000_000
        #if DEBUG
            if sharing.injection?.arrangesAlways == true {
                policy.arrangementGain = 1
                policy.arrangementCalm = .max
                policy.arrangementInterval = 1
                policy.arrangesAll = true
                policy.busyPatience = 0
                policy.quietTime = 20_000_000
            }
            if sharing.injection?.looksAlways == true {
                policy.faultsPerSecond = .infinity
                policy.backoffLimit = 1
            }
        #endif
        let prices = try PriceThread(machine.system) { () throws(LinuxError) in try walls.enter(.prices) }
        self.prices = prices
        var signals = GuestSignals(
            times: { machine.processorTimes() }, isReady: { timeline.isReady },
            measurePrices: { Self.measure(prices) })
        #if DEBUG
            if sharing.injection?.looksAlways == true { signals = .none }
        #endif
        let broker = BrokerSeeker(options, window: window.rawValue)
        self.broker = broker
        broker.reach()
        let startPolicy = policy
        let trace: ShareTrace? =
            if let traceFile { try ShareTrace(traceFile, guest: options.configuration.name) } else { nil }
        self.trace = trace
        let mappingBox = SharingThreadState()
        thread = try SharingThread(
            policy: startPolicy,
            signals: signals,
            make: {
                #if DEBUG
                    let calls = sharing.injection?.calls ?? .kernel
                #else
                    let calls = MappingCalls.kernel
                #endif
                let mapping = try LinuxGuestMapping(
                    memory: machine.memory, userFault: UserFault.open(), calls: calls)
                mappingBox.mapping = mapping
                let engine = try SharingEngine(
                    mapping: mapping, log: machine, vmmWrites: machine.memory.dirtyBitmap,
                    inFlight: machine.memory.inFlight, writers: machine, policy: startPolicy)
                if let trace { engine.trace = { trace.write($0) } }
                #if DEBUG
                    engine.injection = sharing.injection
                    mapping.leavesUnprotected = sharing.injection?.leavesUnprotected ?? false
                #endif
                try walls.enter(.sharing)
                return engine
            },
            connect: { engine in
                guard let mapping = mappingBox.mapping else { return }
                broker.connect(engine, mapping, mappingBox)
            },
            failed: { reason in machine.stop(.failed(reason)) })
    }

    private static func measure(_ prices: PriceThread) -> DisturbancePrices? {
        // Without, the guest counts as one of a host where disturbing it costs much.
        HeapReserve.has(SharingWork.talk.heapBytes) ? prices.prices() : nil
    }

    // MARK: control

    var snapshot: SharingThread.Snapshot { thread.snapshot }

    /// Takes a connection to a broker that somebody hands on, for the case that this guest has none. While sharing is off as well:
    /// references of an earlier connection may have to be given back, and who is turned on again has nobody to ask.
    /// - Returns: what to answer.
    func take(_ descriptor: consuming OwnedDescriptor?) -> ControlAnswer {
        guard let descriptor else { return .refused("a connection to a frame broker must come along") }
        do throws(BrokerError) { broker.take(try BrokerConnection(descriptor)) } catch {
            return .refused("\(error)")
        }
        // Now, not at its next pass.
        thread.wake()
        return .done
    }

    /// The guest said that it is ready: it is not left alone any longer.
    func guestIsReady() { thread.wake() }
    func setEnabled(_ on: Bool) { thread.setPolicy { $0.isEnabled = on } }
    func setHold(_ on: Bool) { thread.setPolicy { $0.holdsMerges = on } }
    func setShare(percent: Double) { thread.setPolicy { $0.setShare(percent: percent) } }
    /// Waits until sharing is off and every page home, or the time is over.
    func waitUntilHome(seconds: Double) -> Bool {
        thread.wait(until: monotonicNanoseconds() + UInt64(seconds * 1e9)) { $0.isHome }
    }
    /// Runs `body` while no mapping of guest memory is replaced.
    func withMappingsHeld<Result, Failure: Error>(_ body: () throws(Failure) -> Result) throws(Failure)
        -> Result
    {
        try thread.withMappingsHeld(body)
    }
    /// Waits until all its threads are confined.
    func waitUntilReady() throws(LinuxError) { try prices.waitUntilReady() }

    func stop() {
        thread.stop()
        prices.end()
    }

    /// How long the sharing thread may take to answer a question, nanoseconds. The main thread waits for it, which has signals and
    /// keys to serve: a broker that is stopped holds neither up for as long as an exchange waits for it.
    private static let questionPatience: UInt64 = 5_000_000_000
    /// Why nothing is explained now: what to answer instead.
    enum NoExplanation: String, Error {
        case noAnswer = "sharing of this guest's memory has stopped, or the broker does not answer"
        case noMemory = "the guest's process has no memory left for that: try again later"
    }

    /// Asks the engine something that it may ask the store for.
    /// - Parameter bytes: what the answer takes of the heap until it is sent.
    private func ask<Answer: Sendable>(
        heapBytes bytes: Int, _ question: @escaping @Sendable (SharingEngine) -> Answer
    ) throws(NoExplanation) -> Answer {
        guard HeapReserve.has(bytes + SharingWork.talk.heapBytes + HeapReserve.size / 2) else {
            throw .noMemory
        }
        guard let answer = thread.ask(until: monotonicNanoseconds() + Self.questionPatience, question) else {
            throw .noAnswer
        }
        return answer
    }

    /// Why its pages are shared or not, each.
    func explain() throws(NoExplanation) -> ShareExplanation {
        // A byte for each page, and once more while packets are made of them.
        let reasons = try ask(heapBytes: pageCount * 2) { $0.explain() }
        let known = snapshot
        let hold =
            !known.policy.isEnabled ? "off" : known.policy.holdsMerges ? "memory" : known.hold?.rawValue
        return ShareExplanation(reasons: reasons, domain: domain, hold: hold)
    }

    /// Why a page is shared or not.
    func explain(page: Int) throws(NoExplanation) -> ControlAnswer {
        guard let answer = try ask(heapBytes: 0, { $0.explain(page: page) }) else {
            return .refused("this guest has no page \(page)")
        }
        let backing =
            switch answer.backing {
            case .home: "home"
            case .zero: "zero"
            case .frame(let location): "\(location)"
            }
        return .said(
            PageShareExplanation(
                reason: answer.reason, backing: backing, mappers: answer.mappers,
                companions: answer.others.map { .init(process: $0.client, page: $0.page) }
            ).text)
    }

    /// What it tells of itself.
    var figures: SharingFigures {
        let snapshot = thread.snapshot
        let known = broker.known
        let now = snapshot.statistics
        var figures = SharingFigures()
        figures.isEnabled = snapshot.policy.isEnabled
        figures.holdsMerges = snapshot.policy.holdsMerges
        figures.isHome = snapshot.isHome
        figures.isSettled = snapshot.isSettled
        figures.domain = domain
        figures.window = window.rawValue
        figures.absorbsGaps = absorbsGaps
        figures.hasBroker = now.hasStore
        figures.brokerConnections = UInt64(clamping: known.connections)
        figures.brokerError = known.failure
        figures.failure = snapshot.failure
        figures.hold = snapshot.hold?.rawValue
        figures.count(now)
        return figures
    }
}

extension SharingFigures {
    /// Takes the engine's counters over.
    fileprivate mutating func count(_ now: SharingStatistics) {
        fullScans = UInt64(clamping: now.fullScans)
        pagesHashed = UInt64(clamping: now.pagesHashed)
        pagesMerged = UInt64(clamping: now.pagesMerged)
        pagesMapped = UInt64(clamping: now.pagesMapped)
        pagesZero = UInt64(clamping: now.pagesZero)
        pagesUnshared = UInt64(clamping: now.pagesUnshared)
        pagesUnsharedTotal = UInt64(clamping: now.pagesUnsharedTotal)
        pagesVolatile = UInt64(clamping: now.pagesVolatile)
        pagesRehomed = UInt64(clamping: now.pagesRehomed)
        mismatches = UInt64(clamping: now.mismatches)
        mappings = UInt64(clamping: now.mappings)
        arrangements = UInt64(clamping: now.arrangements)
        putOffNoMemory = UInt64(clamping: now.putOffNoMemory)
        putOffNoMapping = UInt64(clamping: now.putOffNoMapping)
        metadataBytes = UInt64(clamping: now.metadataBytes)
        cpuSeconds = Double(now.cpuNanoseconds) / 1e9
        lostSeconds = Double(now.lostNanoseconds) / 1e9
        wantedSeconds = Double(now.wantedNanoseconds) / 1e9
        lossPercent = now.recentLoss * 100
        windows = UInt64(clamping: now.windows.count)
        windowMedian = Double(now.windows.quantile(0.5)) / 1000
        window99 = Double(now.windows.quantile(0.99)) / 1000
        windowMaximum = Double(now.windows.maximum) / 1000
    }
}

/// Write protection was asked for and is not allowed.
struct WindowUnavailable: Error, CustomStringConvertible {
    let description =
        "--window userfaultfd: this user may not use it: `mingle doctor` prints the rule that allows it; or use --window pause"
}
