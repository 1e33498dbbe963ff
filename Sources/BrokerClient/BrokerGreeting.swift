public import FrameStore
internal import LinuxHost

/// The beginning of a client's life: a connection over which a broker is greeted. The broker may take its time: who asked once can
/// ask for the answer again later, since another connection may not be had. Used by one thread.
public final class BrokerGreeting {
    /// nil when it failed, or became a store.
    private var socket: PacketSocket?
    private let hello: Hello
    private let staging: StagingArea
    private var wasSent = false
    private var buffer = [UInt8](repeating: 0, count: BrokerStore.replyLimit)

    /// Parameters as of ``BrokerStore``'s connect.
    public init(over connection: consuming BrokerConnection, domain: String?, pageCount: Int)
        throws(BrokerError)
    {
        hello = try BrokerStore.hello(domain, pageCount)
        do throws(LinuxError) { staging = try StagingArea() } catch { throw .system(error) }
        socket = connection.release()
    }

    /// Greets, the first time, and waits for the answer.
    /// - Parameters:
    ///   - milliseconds: how long; then it throws `overdue`, and may be called again. After any other error it is over.
    ///   - deadlineMilliseconds: how long any later answer may take.
    ///   - history: what the guest knows of its earlier connections.
    public func answer(within milliseconds: Int, deadlineMilliseconds: Int = 10_000, history: SessionHistory)
        throws(BrokerError) -> BrokerStore
    {
        guard let open = socket.take() else { throw .closed }
        let link = BrokerLink(open, milliseconds)
        let answer: (message: [UInt8], passed: Int32)
        do throws(BrokerError) {
            if !wasSent { try link.send(hello.encoded(), passing: staging.descriptor.number) }
            wasSent = true
            answer = try link.receive(into: &buffer)
        } catch {
            if case .overdue = error { socket = link.release() }
            throw error
        }
        return try BrokerStore(link, answer, staging, deadlineMilliseconds, history)
    }
}
