internal import GuestMemory
internal import ImageFormats
internal import LinuxHost

/// Puts kernel or payload, tables and entry state into guest memory.
struct GuestLoader {
    let configuration: VirtualMachineConfiguration
    let memory: GuestMemory
    let images: BootImages
    /// What the guest's kernel is told of.
    let devices: [DeviceDescription]
    /// Hz, 0 if unknown.
    let timestampFrequency: UInt64

    init(
        configuration: VirtualMachineConfiguration, memory: GuestMemory, images: BootImages,
        devices: [DeviceDescription], timestampFrequency: UInt64
    ) {
        self.configuration = configuration
        self.memory = memory
        self.images = images
        self.devices = devices
        self.timestampFrequency = timestampFrequency
    }

    /// Opens the images that the configuration names.
    init(
        configuration: VirtualMachineConfiguration, memory: GuestMemory, devices: [DeviceDescription] = [],
        timestampFrequency: UInt64
    ) throws(HypervisorError) {
        self.init(
            configuration: configuration, memory: memory, images: try BootImages(configuration),
            devices: devices, timestampFrequency: timestampFrequency)
    }

    func load() throws(HypervisorError) -> EntryPoint {
        let path = images.kernel.path
        let source = try imageSource(images.kernel.descriptor, path)
        let isELF = try imageFormat(path) { () throws(ImageFormatError) in
            ELF64.isELF(try source.head(ELF64.magic.count))
        }
        let entry: EntryPoint
        switch configuration.bootProtocol {
        case .payload: entry = try loadPayload(images.kernel.descriptor)
        case .bzimage: entry = try linux().loadBzImage(images.kernel.descriptor, name: path)
        case .pvh: entry = try loadELF(allowPVH: true, requirePVH: true)
        case .linux64: entry = try loadELF(allowPVH: false, requirePVH: false)
        case .auto where !isELF: entry = try linux().loadBzImage(images.kernel.descriptor, name: path)
        case .auto:
            if try ELFImage(images.kernel.descriptor, name: path).notes.isPayload {
                entry = try loadPayload(images.kernel.descriptor)
            } else {
                entry = try loadELF(allowPVH: true, requirePVH: false)
            }
        }
        try writeTables(entry)
        return entry
    }

    private func loadELF(allowPVH: Bool, requirePVH: Bool) throws(HypervisorError) -> EntryPoint {
        try linux().loadELF(
            images.kernel.descriptor, name: images.kernel.path, allowPVH: allowPVH, requirePVH: requirePVH)
    }

    private func linux() throws(HypervisorError) -> LinuxBoot {
        // Below this no kernel unpacks itself; the message beats a guest that dies without a word.
        guard memory.sizeInBytes >= 16 << 20 else {
            throw .invalidConfiguration(
                "\(memory.sizeInBytes >> 20) MiB of memory are too few for a Linux guest: give it at least 32"
            )
        }
        return try LinuxBoot(
            memory: memory, commandLine: configuration.commandLine, initrds: images.initrds)
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
        let tables = ACPITables(processorCount: configuration.processorCount, devices: devices)
        try memoryAccess { () throws(GuestMemoryError) in
            try memory.write(tables.bytes, at: Layout.acpiTables)
        }
    }
}
