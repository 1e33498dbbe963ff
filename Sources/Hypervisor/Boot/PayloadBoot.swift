internal import GuestMemory
internal import LinuxHost

/// Loads a payload: a static program that runs in ring 3 (guests/README.md).
struct PayloadBoot {
    static let abiVersion: UInt32 = 1
    private static let magic: UInt64 = 0x4250_454C_474E_494D
    private static let stackSize: UInt64 = 64 << 10
    private static let argumentsLimit = 4095

    let memory: GuestMemory
    let processorCount: Int
    let options: PayloadOptions
    /// Hz, 0 if unknown.
    let timestampFrequency: UInt64

    func load(_ file: borrowing OwnedDescriptor, name: String) throws(HypervisorError) -> EntryPoint {
        let image = try ELFImage(file, name: name)
        let version = try image.payloadVersion()
        guard version == Self.abiVersion else {
            throw .badImage(
                "\(name): a payload of ABI \(version); this version of mingle runs ABI \(Self.abiVersion)")
        }
        try image.load(file, name: name, into: memory)
        guard image.contains(image.entry) else {
            throw .badImage("\(name): its entry point 0x\(hex(image.entry)) is in no segment")
        }
        let arguments = Array(options.arguments.utf8)
        guard arguments.count <= Self.argumentsLimit, !arguments.contains(0) else {
            throw .invalidConfiguration(
                "payload arguments of \(arguments.count) bytes: at most \(Self.argumentsLimit), without NUL")
        }
        let low = memory.regions[0].range
        guard let stacks = Page.roundUp(image.end.value),
            let free = GuestAddress(stacks).advanced(by: UInt64(processorCount) * Self.stackSize),
            free < low.end
        else {
            throw .badImage(
                "\(name): no room for stacks behind it in \(memory.sizeInBytes >> 20) MiB: give it more --memory"
            )
        }
        let tables = try PageTables(in: memory, forUserMode: true)
        try memoryAccess { () throws(GuestMemoryError) in
            try memory.write(
                information(freeStart: free, argumentCount: arguments.count), at: Layout.payloadInformation)
            try memory.write(arguments + [0], at: Layout.payloadArguments)
        }
        return EntryPoint(
            address: image.entry,
            mode: .payload(
                information: Layout.payloadInformation, stacks: GuestAddress(stacks), pageTables: tables.root)
        )
    }

    /// Initial stack pointer of a vCPU: as after a call whose return address is 0.
    static func stackPointer(_ index: Int, stacks: GuestAddress) -> UInt64 {
        stacks.value + UInt64(index + 1) * stackSize - 8
    }

    private func information(freeStart: GuestAddress, argumentCount: Int) -> [UInt8] {
        let high = memory.regions.count > 1 ? memory.regions[1].range : nil
        var page = ByteWriter()
        page.put(Self.magic)
        page.put(Self.abiVersion)
        page.put(UInt32(processorCount))
        page.put(memory.sizeInBytes)
        page.put(memory.regions[0].range.end.value)
        page.put(high?.start.value ?? 0)
        page.put(high?.end.value ?? 0)
        page.put(freeStart.value)
        page.put(options.guestIndex)
        page.put(UInt32(argumentCount))
        page.put(options.seed)
        page.put(Layout.payloadArguments.value)
        page.put(timestampFrequency)
        return page.bytes
    }
}
