internal import GuestMemory
internal import LinuxHost

/// The devices that every machine has.
struct StandardDevices {
    let serial: Serial16550
    let power: ACPIPowerDevice
    let descriptions: [DeviceDescription]

    /// - Parameters:
    ///   - processors: what the ports of payloads keep, for each vCPU.
    ///   - setLine: sets the level of an interrupt line (GSI); called on vCPU threads and by whoever uses a device.
    init(
        _ observer: GuestObserver, processors: [PayloadProcessor],
        setLine: @escaping @Sendable (_ gsi: UInt32, _ level: Bool) -> Void
    ) {
        let serialLine = DeviceDescription.Interrupt(gsi: Layout.serialInterrupt)
        serial = Serial16550(
            setInterrupt: { setLine(serialLine.gsi, $0) }, outputReady: observer.serialOutput,
            inputReady: observer.serialInput)
        power = ACPIPowerDevice { setLine(Layout.acpiInterrupt, $0) }
        descriptions = [
            DeviceDescription(
                identity: .init(name: "COM1", hardwareID: "PNP0501"),
                ports: [.init(Layout.serial, 8, serial)],
                interrupt: serialLine),
            // Linux drives the clock with its alarm's line; the alarm itself is not there.
            DeviceDescription(
                identity: .init(name: "RTC_", hardwareID: "PNP0B00"),
                ports: [.init(Layout.cmos, 2, CMOSClock())],
                interrupt: .init(gsi: Layout.clockInterrupt)),
            DeviceDescription(
                identity: .init(name: "PEVT", hardwareID: "QEMU0001"),
                ports: [.init(Layout.panic, 1, PanicDevice())]),
            // The FADT tells of these two; its SCI is the power device's line.
            DeviceDescription(ports: [.init(Layout.powerEvent, 12, power)]),
            DeviceDescription(ports: [.init(Layout.reset, 1, ResetControl())]),
            // Kernels know these two by their places.
            DeviceDescription(ports: [.init(Layout.keyboardController, 1, KeyboardController())]),
            DeviceDescription(
                ports: [
                    .init(
                        Layout.guestPorts, 0x20,
                        GuestPorts(doorbell: observer.doorbell, processors: processors))
                ]),
        ]
    }
}
