import FrameStore
import BrokerClient
import GuestMemory
import LinuxHost
import Hypervisor
import VMMProtocol
import Sharing
import Synchronization

/// Finds this guest's broker, again and again while it has none: over a connection that somebody handed it, or by the
/// socket's path. It never starts one.
final class BrokerSeeker: Sendable {
    /// What is known of the broker, for statistics.
    struct Known {
        var failure: String?
        var connections = 0
    }

    /// A broker that is stopped keeps the thread, and with it the guest's end, no longer than this; milliseconds.
    private static let greeting = 3_000

    private let path: String?
    private let domain: String?
    private let logLevel: LogLevel
    private let state = Mutex(Known())
    private let news: Mutex<SharingNews>
    private let offered = Mutex<BrokerConnection?>(nil)

    /// - Parameter window: as people know it.
    init(_ options: Options, window: String) {
        news = Mutex(SharingNews(guest: options.configuration.name, window: window))
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
        guard HeapReserve.has(SharingWork.talk.heapBytes) else {
            return state.withLock { $0.failure = "no memory is left to look for the broker" }
        }
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
        state.withLock { known in
            known.failure = nil
            known.connections += 1
        }
        say(news.withLock { $0.connected(domain: domain ?? "(its own)") })
    }

    private func failed(_ error: BrokerError) {
        state.withLock { $0.failure = "\(error)" }
        say(news.withLock { $0.failed(error, now: monotonicNanoseconds()) })
    }

    private func say(_ message: (level: LogLevel, text: String)?) {
        guard let message, message.level >= logLevel else { return }
        HostIO.tell("mingle: \(message.level.rawValue): \(message.text)\n")
    }
}
