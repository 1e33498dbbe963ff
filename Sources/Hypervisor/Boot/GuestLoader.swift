internal import GuestMemory
internal import ImageFormats
internal import LinuxHost

/// Puts kernel or payload, tables and entry state into guest memory.
struct GuestLoader {
    let configuration: VirtualMachineConfiguration
    let memory: GuestMemory
    /// Hz, 0 if unknown.
    let timestampFrequency: UInt64

    func load() throws(HypervisorError) -> EntryPoint {
        let path = configuration.kernelPath
        let file = try openImage(path)
        let source = try imageSource(file, path)
        let isELF = try imageFormat(path) { () throws(ImageFormatError) in
            ELF64.isELF(try source.head(ELF64.magic.count))
        }
        let entry: EntryPoint
        switch configuration.bootProtocol {
        case .payload: entry = try loadPayload(file)
        case .bzimage: entry = try linux().loadBzImage(file, name: path)
        case .pvh: entry = try linux().loadELF(file, name: path, allowPVH: true, requirePVH: true)
        case .linux64: entry = try linux().loadELF(file, name: path, allowPVH: false, requirePVH: false)
        case .auto where !isELF: entry = try linux().loadBzImage(file, name: path)
        case .auto:
            if try ELFImage(file, name: path).notes.isPayload {
                entry = try loadPayload(file)
            } else {
                entry = try linux().loadELF(file, name: path, allowPVH: true, requirePVH: false)
            }
        }
        try writeTables(entry)
        return entry
    }

    private func linux() throws(HypervisorError) -> LinuxBoot {
        // Below this no kernel unpacks itself; the message beats a guest that dies without a word.
        guard memory.sizeInBytes >= 16 << 20 else {
            throw .invalidConfiguration(
                "\(memory.sizeInBytes >> 20) MiB of memory are too few for a Linux guest: give it at least 32"
            )
        }
        return try LinuxBoot(
            memory: memory, commandLine: configuration.commandLine, initrdPaths: configuration.initrdPaths)
    }

    private func loadPayload(_ file: borrowing OwnedDescriptor) throws(HypervisorError) -> EntryPoint {
        guard configuration.initrdPaths.isEmpty else {
            throw .invalidConfiguration("a payload takes no initrd")
        }
        return try PayloadBoot(
            memory: memory, processorCount: configuration.processorCount, options: configuration.payload,
            timestampFrequency: timestampFrequency
        ).load(file, name: configuration.kernelPath)
    }

    private func writeTables(_ entry: EntryPoint) throws(HypervisorError) {
        try memoryAccess { () throws(GuestMemoryError) in
            try memory.write(VCPUState.descriptorTable(for: entry.mode), at: Layout.descriptorTable)
        }
        if case .payload = entry.mode {
            try memoryAccess { () throws(GuestMemoryError) in
                try memory.write(VCPUState.taskState(), at: Layout.taskState)
            }
            return
        }
        let tables = ACPITables(
            processorCount: configuration.processorCount,
            devices: [
                ACPIDevice(
                    name: "COM1", hardwareID: "PNP0501", ports: [(Layout.serial, 8)],
                    interrupt: Layout.serialInterrupt),
                ACPIDevice(name: "RTC_", hardwareID: "PNP0B00", ports: [(Layout.cmos, 2)], interrupt: 8),
                ACPIDevice(name: "PEVT", hardwareID: "QEMU0001", ports: [(Layout.panic, 1)]),
            ])
        try memoryAccess { () throws(GuestMemoryError) in
            try memory.write(tables.bytes, at: Layout.acpiTables)
        }
    }
}
