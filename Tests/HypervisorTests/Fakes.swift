import GuestMemory
import Synchronization

@testable import Hypervisor

/// A vCPU without KVM that writes down what devices ask of it.
final class FakeProcessor: ProcessorContext {
    let index: Int
    private let record = Mutex<[GuestEnd]>([])

    init(_ index: Int = 0) { self.index = index }

    var ends: [GuestEnd] { record.withLock { $0 } }
    func end(_ reason: GuestEnd) { record.withLock { $0.append(reason) } }
}

/// An interrupt line: its level and every change.
final class FakeLine: Sendable {
    private let changes = Mutex<[Bool]>([])
    var level: Bool { changes.withLock { $0.last ?? false } }
    var history: [Bool] { changes.withLock { $0 } }
    func set(_ level: Bool) { changes.withLock { $0.append(level) } }
}

func makeMemory(_ size: UInt64) throws -> GuestMemory {
    try GuestMemory(sizeInBytes: size, lowLimit: Layout.holeStart, highStart: Layout.fourGiB)
}

/// Little-endian integers of guest memory or of a table.
func integer(_ bytes: some Collection<UInt8>) -> UInt64 {
    bytes.reversed().reduce(0) { $0 << 8 | UInt64($1) }
}

func littleEndian(_ value: UInt64, _ width: Int) -> [UInt8] {
    (0..<width).map { UInt8(truncatingIfNeeded: value >> UInt64($0 * 8)) }
}

let gib: UInt64 = 1 << 30
let mib: UInt64 = 1 << 20
