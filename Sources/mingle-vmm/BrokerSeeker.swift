import FrameBroker
import GuestMemory
import Hypervisor
import Logging
import Sharing
import Synchronization

/// Finds this guest's broker, again and again while it has none: over a connection that somebody handed it, or by the
/// socket's path. It never starts one.
final class BrokerSeeker: Sendable {
    /// What is known of the broker, for statistics.
    struct Known {
        var failure: String?
        var connections = 0
        /// What was said of it, so that it is said once.
        fileprivate var said: String?
    }

    /// A broker that is stopped keeps the thread, and with it the guest's end, no longer than this; milliseconds.
    private static let greeting = 3_000

    private let name: String
    private let path: String?
    private let domain: String?
    private let logLevel: Logger.Level
    private let state = Mutex(Known())
    private let offered = Mutex<BrokerConnection?>(nil)

    init(_ options: Options) {
        name = options.configuration.name
        path = options.sharing.brokerPath
        domain = options.sharing.domain
        logLevel = options.logLevel
    }

    var known: Known { state.withLock { $0 } }

    /// Takes a connection for the next time that one is wanted. Any thread.
    func take(_ connection: consuming BrokerConnection) {
        var taken: BrokerConnection? = consume connection
        offered.withLock { $0 = taken.take() }
    }

    /// Gives the engine a store, if there is a broker. On the sharing thread.
    func connect(_ engine: SharingEngine, _ mapping: LinuxGuestMapping, _ history: SessionHistory) {
        do throws(BrokerError) {
            guard let store = try open(mapping.pageCount, history) else { return }
            guard let hasher = PageHasher(secret: store.secret) else { throw .malformed("its secret") }
            mapping.connect(
                StoreConnection(
                    fileNumber: store.storeDescriptor.number, owner: store, hasher: hasher,
                    staging: store.staging))
            engine.connect(store)
            joined()
        } catch { failed(error) }
    }

    private func open(_ pageCount: Int, _ history: SessionHistory) throws(BrokerError) -> BrokerStore? {
        var refusal: BrokerError?
        if let connection = offered.withLock({ $0.take() }) {
            do throws(BrokerError) {
                return try BrokerStore.connect(
                    over: connection, domain: domain, pageCount: pageCount,
                    greetingMilliseconds: Self.greeting, history: history)
            } catch { refusal = error }
        }
        guard let path else {
            if let refusal { throw refusal }
            return nil
        }
        return try BrokerStore.connect(
            path: path, domain: domain, pageCount: pageCount, greetingMilliseconds: Self.greeting,
            history: history)
    }

    private func joined() {
        let wasSaid = state.withLock { known in
            known.failure = nil
            known.connections += 1
            defer { known.said = nil }
            return known.said != nil
        }
        if wasSaid { say(.info, "shares memory now: it joined the frame broker") }
    }

    private func failed(_ error: BrokerError) {
        let text = "\(error)"
        let isNews = state.withLock { known in
            known.failure = text
            // A broker that is lost later is replaced; until it is, the statistics tell.
            let mayChange = if case .refused = error { false } else { true }
            guard mayChange ? known.connections == 0 && known.said == nil : known.said != text else {
                return false
            }
            known.said = text
            return true
        }
        guard isNews else { return }
        if case .refused = error {
            say(.warning, "shares only pages of zeros: \(text)")
        } else {
            // `mingle run` has warned already.
            say(.info, "shares only pages of zeros until it can join a frame broker: \(text)")
        }
    }

    private func say(_ level: Logger.Level, _ text: String) {
        guard logLevel <= level else { return }
        HostIO.writeAll(2, "mingle: \(level.rawValue): \(name) \(text)\n")
    }
}
