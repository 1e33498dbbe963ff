import BrokerClient
import FrameStore
import Glibc
import LinuxHost

/// Joins over connections that it is offered at its control socket, as a confined VMM does.
final class OfferedGuest {
    private let door: PacketSocket
    private let domain: String
    private var offers = 0
    private var busy: Int
    private var store: BrokerStore?

    init(control: String, domain: String, busy: Int) throws {
        self.busy = busy
        door = try PacketSocket.listen(at: control, backlog: 8)
        self.domain = domain
    }

    func run() throws {
        say("ready")
        var buffer = [UInt8](repeating: 0, count: 4096)
        while true {
            guard door.waitForInput(until: .max) else { continue }
            let client = try door.accept()
            // Who only looks who listens says nothing.
            guard client.waitForInput(until: monotonicNanoseconds() + 1_000_000_000),
                case .packet(_, let passed) = client.receive(into: &buffer), passed >= 0
            else {
                say("looked")
                continue
            }
            let given = OwnedDescriptor(adopting: passed)
            offers += 1
            guard offers > busy else {
                _ = client.send(Array("error: others keep this guest busy".utf8))
                continue
            }
            _ = client.send(Array("ok".utf8))
            do throws(BrokerError) {
                let connection = try BrokerConnection(given)
                store = try BrokerStore.connect(over: connection, domain: domain, pageCount: 4)
                say("joined \(offers)")
                (offers, busy) = (0, 0)
            } catch { continue }
        }
    }
}
