internal import GuestMemory

/// The vCPU that a device serves: what a device may know of it and ask of it.
package protocol ProcessorContext: AnyObject, Sendable {
    var index: Int { get }
    /// Ends the guest.
    func end(_ reason: GuestEnd)
}

/// A device on the port bus. Called on vCPU threads, several at a time: each device guards its own state.
protocol PortDevice: AnyObject, Sendable {
    /// - Parameters: offset from the device's first port; size 1, 2 or 4 bytes.
    func read(offset: UInt16, size: Int, by vcpu: any ProcessorContext) -> UInt32
    func write(offset: UInt16, size: Int, value: UInt32, by vcpu: any ProcessorContext)
}

/// A device in a window of guest-physical addresses. Called on vCPU threads, several at a time.
package protocol MemoryDevice: AnyObject, Sendable {
    /// - Parameters: offset from the window's start; size 1 to 8 bytes.
    func read(offset: UInt64, size: Int, by vcpu: any ProcessorContext) -> UInt64
    func write(offset: UInt64, size: Int, value: UInt64, by vcpu: any ProcessorContext)
}

/// Finds the device of an access. Built before the vCPUs start and never changed after, so it needs no lock.
/// Reads that no device answers give all ones, as on a PC's bus; such writes go nowhere.
final class Bus: Sendable {
    private struct PortWindow: Sendable {
        let ports: Range<Int>
        let device: any PortDevice
    }
    private let portWindows: [PortWindow]
    private let memoryWindows: [DeviceDescription.Window]

    init(_ devices: [DeviceDescription]) {
        portWindows = devices.flatMap(\.ports).sorted { $0.first < $1.first }.map {
            PortWindow(ports: Int($0.first)..<Int($0.first) + Int($0.count), device: $0.device)
        }
        for (left, right) in zip(portWindows, portWindows.dropFirst()) {
            precondition(left.ports.upperBound <= right.ports.lowerBound, "port windows do not overlap")
        }
        memoryWindows = devices.flatMap(\.windows).sorted { $0.range.start < $1.range.start }
        for (left, right) in zip(memoryWindows, memoryWindows.dropFirst()) {
            precondition(!left.range.overlaps(right.range), "memory windows do not overlap")
        }
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

    func read(_ address: GuestAddress, size: Int, by vcpu: any ProcessorContext) -> UInt64 {
        guard let window = window(address, size) else { return UInt64.max }
        return window.device.read(offset: address.value - window.range.start.value, size: size, by: vcpu)
    }

    func write(_ address: GuestAddress, size: Int, value: UInt64, by vcpu: any ProcessorContext) {
        guard let window = window(address, size) else { return }
        window.device.write(
            offset: address.value - window.range.start.value, size: size, value: value, by: vcpu)
    }

    private func window(_ port: UInt16) -> PortWindow? {
        portWindows.first { $0.ports.contains(Int(port)) }
    }

    private func window(_ address: GuestAddress, _ size: Int) -> DeviceDescription.Window? {
        guard let access = GuestRange(start: address, sizeInBytes: UInt64(size)) else { return nil }
        return memoryWindows.first { $0.range.contains(access) }
    }
}
