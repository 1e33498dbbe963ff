internal import GuestMemory

/// The vCPU that a device serves: what a device may know of it and ask of it.
protocol ProcessorContext: AnyObject, Sendable {
    var index: Int { get }
    /// High half of the clock as the guest last latched it on this vCPU.
    var latchedClock: UInt32 { get set }
    /// Ends the guest.
    func end(_ reason: GuestEnd)
    /// Lets the vCPU rest; a pause or the end interrupts it.
    func sleep(microseconds: UInt32)
}

/// A device on the port bus. Called on vCPU threads, several at a time: each device guards its own state.
protocol PortDevice: AnyObject, Sendable {
    /// - Parameters: offset from the device's first port; size 1, 2 or 4 bytes.
    func read(offset: UInt16, size: Int, by vcpu: any ProcessorContext) -> UInt32
    func write(offset: UInt16, size: Int, value: UInt32, by vcpu: any ProcessorContext)
}

/// A device in a window of guest-physical addresses.
protocol MemoryDevice: AnyObject, Sendable {
    /// - Parameters: offset from the window's start; size 1 to 8 bytes.
    func read(offset: UInt64, size: Int) -> UInt64
    func write(offset: UInt64, size: Int, value: UInt64)
}

/// Finds the device of an access. Built before the vCPUs start and never changed after, so it needs no lock.
/// Reads that no device answers give all ones, as on a PC's bus; such writes go nowhere.
final class Bus: Sendable {
    private struct PortWindow: Sendable {
        let ports: Range<Int>
        let device: any PortDevice
    }
    private struct MemoryWindow: Sendable {
        let range: GuestRange
        let device: any MemoryDevice
    }
    private let portWindows: [PortWindow]
    private let memoryWindows: [MemoryWindow]

    init(
        ports: [(first: UInt16, count: Int, device: any PortDevice)],
        memory: [(range: GuestRange, device: any MemoryDevice)] = []
    ) {
        let sorted = ports.sorted { $0.first < $1.first }
        for (left, right) in zip(sorted, sorted.dropFirst()) {
            precondition(Int(left.first) + left.count <= Int(right.first), "port windows do not overlap")
        }
        portWindows = sorted.map {
            PortWindow(ports: Int($0.first)..<Int($0.first) + $0.count, device: $0.device)
        }
        let byAddress = memory.sorted { $0.range.start < $1.range.start }
        for (left, right) in zip(byAddress, byAddress.dropFirst()) {
            precondition(!left.range.overlaps(right.range), "memory windows do not overlap")
        }
        memoryWindows = memory.map { MemoryWindow(range: $0.range, device: $0.device) }
    }

    func read(port: UInt16, size: Int, by vcpu: any ProcessorContext) -> UInt32 {
        let allOnes = UInt32.max >> UInt32(32 - size * 8)
        guard let window = window(port) else { return allOnes }
        return window.device.read(offset: port - UInt16(window.ports.lowerBound), size: size, by: vcpu)
            & allOnes
    }

    func write(port: UInt16, size: Int, value: UInt32, by vcpu: any ProcessorContext) {
        guard let window = window(port) else { return }
        window.device.write(
            offset: port - UInt16(window.ports.lowerBound), size: size, value: value, by: vcpu)
    }

    func read(_ address: GuestAddress, size: Int) -> UInt64 {
        guard let window = window(address, size) else { return UInt64.max }
        return window.device.read(offset: address.value - window.range.start.value, size: size)
    }

    func write(_ address: GuestAddress, size: Int, value: UInt64) {
        guard let window = window(address, size) else { return }
        window.device.write(offset: address.value - window.range.start.value, size: size, value: value)
    }

    private func window(_ port: UInt16) -> PortWindow? {
        portWindows.first { $0.ports.contains(Int(port)) }
    }

    private func window(_ address: GuestAddress, _ size: Int) -> MemoryWindow? {
        guard let access = GuestRange(start: address, sizeInBytes: UInt64(size)) else { return nil }
        return memoryWindows.first { $0.range.contains(access) }
    }
}
