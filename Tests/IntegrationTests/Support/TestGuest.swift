import Foundation
import GuestMemory
import Synchronization

@testable import Hypervisor
import TestSupport

/// A guest in this process; stopped when its owner goes.
final class TestGuest: Sendable {
    private struct Heard {
        var doorbells: [UInt32] = []
        var text: [UInt8] = []
    }
    private final class Ear: Sendable {
        let heard = Mutex(Heard())
    }

    let machine: VirtualMachine
    private let ear: Ear

    init(
        _ payload: String = "hello", _ arguments: String = "", kernel: String? = nil,
        memory: UInt64 = 16 << 20,
        processors: Int = 1, dirtyLog: DirtyLogMode = .off, beginsLater: Bool = false,
        devices: [DeviceDescription] = [],
        makeDevices: VirtualMachine.DeviceMaker = { _ in [] }
    ) throws {
        var configuration = VirtualMachineConfiguration()
        configuration.name = "integration"
        configuration.kernelPath = try kernel ?? Locations.payload(payload)
        configuration.memorySizeInBytes = memory
        configuration.processorCount = processors
        configuration.payload.arguments = arguments
        configuration.dirtyLog = dirtyLog
        configuration.beginsDirtyLogLater = beginsLater
        let ear = Ear()
        self.ear = ear
        var observer = GuestObserver()
        observer.doorbell = { number, _ in ear.heard.withLock { $0.doorbells.append(number) } }
        machine = try VirtualMachine(configuration, observer: observer) {
            context throws(HypervisorError) in devices + (try makeDevices(context))
        }
    }

    deinit { machine.stop() }

    func start() throws { try machine.start() }

    /// What the guest has said so far.
    var text: String {
        ear.heard.withLock { heard in
            while case let bytes = machine.serial.takeOutput(limit: 65536), !bytes.isEmpty {
                heard.text += bytes
            }
            return String(decoding: heard.text, as: UTF8.self)
        }
    }

    /// Waits for a whole line with this in it.
    @discardableResult
    func line(_ part: String, within seconds: Double = 30) throws -> String {
        var found: String?
        _ = eventually(within: seconds) {
            let lines = text.split(separator: "\n", omittingEmptySubsequences: false).dropLast()
            found = lines.first { $0.contains(part) }.map(String.init)
            return found != nil
        }
        guard let found else { throw Failure("the guest did not say '\(part)', but: \(text)") }
        return found
    }

    func doorbell(_ number: UInt32, within seconds: Double = 30) throws {
        let rang = eventually(within: seconds) { ear.heard.withLock { $0.doorbells.contains(number) } }
        guard rang else { throw Failure("the guest did not ring \(number); it said: \(text)") }
    }

    func send(_ line: String) { machine.serial.receive(Array("\(line)\n".utf8)) }

    /// How it ended by itself.
    func end(within seconds: Double = 60) throws -> GuestEnd {
        guard eventually(within: seconds, { machine.end != nil }), let end = machine.end else {
            throw Failure("the guest did not end within \(seconds) s; it said: \(text)")
        }
        return end
    }

    // MARK: boot information (guests/README.md)

    func information(at offset: UInt64) throws -> UInt64 {
        try machine.memory.load(UInt64.self, at: GuestAddress(0x1000 + offset))
    }
    var freeStart: UInt64 { get throws { try information(at: 48) } }
}
