import FrameStore
import BrokerClient
import GuestMemory
import LinuxHost
import Hypervisor
import VMMProtocol
import Sharing
import Synchronization

/// Finds this guest's broker: by its socket once, before the guest runs; from then on over connections that somebody hands it,
/// since a confined VMM connects to nothing. It never starts one.
///
/// A broker that does not answer yet keeps the connection: it is asked again for the answer.
final class BrokerSeeker: Sendable {
    /// What is known of the broker, for statistics.
    struct Known {
        var failure: String?
        var connections = 0
    }

    /// A broker that is stopped keeps the thread, and with it the guest's end, no longer than this; milliseconds.
    private static let greeting = 3_000
    /// How long to wait for room at its door; milliseconds.
    private static let door = 100

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

    /// Connects to the broker by its socket. When nobody listens there, the guest has to be offered a connection later.
    func reach() {
        // What tells users apart is read from /proc, once.
        _ = UserNumbers.current
        guard let path else { return }
        do throws(BrokerError) { take(try BrokerConnection(path: path, milliseconds: Self.door)) } catch {
            state.withLock { $0.failure = "\(error)" }
        }
    }

    /// Takes a connection for the next time that one is wanted. Any thread.
    func take(_ connection: consuming BrokerConnection) {
        var taken: BrokerConnection? = consume connection
        offered.withLock { $0 = taken.take() }
    }

    /// Gives the engine a store, if there is a broker. On the sharing thread.
    func connect(_ engine: SharingEngine, _ mapping: LinuxGuestMapping, _ thread: SharingThreadState) {
        guard HeapReserve.has(SharingWork.talk.heapBytes) else {
            return state.withLock { $0.failure = "no memory is left to look for the broker" }
        }
        do throws(BrokerError) {
            guard let store = try open(mapping.pageCount, thread) else { return }
            guard let hasher = PageHasher(secret: store.secret) else { throw .malformed("its secret") }
            mapping.connect(
                StoreConnection(
                    fileNumber: store.storeDescriptor.number, owner: store, hasher: hasher,
                    staging: store.staging))
            engine.connect(store)
            joined()
        } catch { failed(error) }
    }

    private func open(_ pageCount: Int, _ thread: SharingThreadState) throws(BrokerError) -> BrokerStore? {
        // The newest connection is the one that somebody listens to.
        if let connection = offered.withLock({ $0.take() }) {
            thread.greeting = try BrokerGreeting(over: connection, domain: domain, pageCount: pageCount)
        }
        guard let greeting = thread.greeting else {
            guard let path else { return nil }
            throw thread.refusal ?? .noBroker(path)
        }
        thread.refusal = nil
        do throws(BrokerError) {
            let store = try greeting.answer(within: Self.greeting, history: thread.history)
            thread.greeting = nil
            return store
        } catch {
            if case .overdue = error { throw error }
            thread.greeting = nil
            if case .refused = error { thread.refusal = error }
            throw error
        }
    }

    private func joined() {
        state.withLock { known in
            known.failure = nil
            known.connections += 1
        }
        say(news.withLock { $0.connected(domain: domain ?? SharingFigures.ownDomain) })
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
