internal import GuestMemory
internal import Glibc
internal import ImageFormats
internal import LinuxHost

/// Where a vCPU begins.
struct EntryPoint: Equatable, Sendable {
    enum Mode: Equatable, Sendable {
        /// 32-bit protected mode without paging; EBX = hvm_start_info (PVH).
        case pvh(startInfo: GuestAddress)
        /// Long mode, ring 0, identity map; RSI = boot_params (Linux 64-bit protocol).
        case linux64(bootParameters: GuestAddress, pageTables: GuestAddress)
        /// Long mode, ring 3, identity map; RDI = boot information, a stack for each vCPU (guests/README.md).
        case payload(information: GuestAddress, stacks: GuestAddress, pageTables: GuestAddress)
    }
    let address: UInt64
    let mode: Mode
}

/// Loads a Linux kernel, initrd and command line, and writes what the kernel reads first.
struct LinuxBoot {
    private let memory: GuestMemory
    private let map: MemoryMap
    private let commandLine: String
    private let initrds: [ImageFile]

    init(memory: GuestMemory, commandLine: String, initrds: [ImageFile]) throws(HypervisorError) {
        self.memory = memory
        self.commandLine = commandLine
        self.initrds = initrds
        map = MemoryMap(of: memory)
        guard commandLine.utf8.count <= Layout.commandLineLimit, !commandLine.utf8.contains(0) else {
            throw .invalidConfiguration(
                "the kernel command line has \(commandLine.utf8.count) bytes; x86 Linux takes \(Layout.commandLineLimit), without NUL"
            )
        }
    }

    /// A vmlinux: by its PVH note if it has one that can be used (and `allowPVH`), else by the 64-bit protocol.
    func loadELF(
        _ file: borrowing OwnedDescriptor, name: String, allowPVH: Bool, requirePVH: Bool
    ) throws(HypervisorError) -> EntryPoint {
        let image = try ELFImage(file, name: name)
        let pvhEntry = allowPVH ? image.notes.pvhEntry : nil
        if requirePVH, pvhEntry == nil {
            throw .badImage("\(name): \(image.notes.pvhProblem): boot it with --boot linux64")
        }
        let start = pvhEntry.map(UInt64.init) ?? image.entry
        guard image.contains(start) else {
            throw .badImage("\(name): its entry point 0x\(hex(start)) is in no segment")
        }
        try image.load(file, name: name, into: memory)
        let initrd = try loadInitrd(above: image.end, limit: GuestAddress(0x7FFF_FFFF))
        try writeCommandLine()
        if pvhEntry != nil {
            try writeStartInfo(initrd: initrd)
            return EntryPoint(address: start, mode: .pvh(startInfo: Layout.startInfo))
        }
        try writeBootParameters(setupHeader: nil, initrd: initrd)
        return try linux64(entry: start)
    }

    /// A bzImage by its 64-bit entry (Linux's Documentation/arch/x86/boot.rst).
    func loadBzImage(_ file: borrowing OwnedDescriptor, name: String) throws(HypervisorError) -> EntryPoint {
        let source = try imageSource(file, name)
        let (kernelOffset, image) = try imageFormat(name) { () throws(ImageFormatError) in
            let header = try BzImageHeader(source)
            let entry = try header.entry64()
            // The 64-bit entry is 0x200 bytes into the kernel part.
            guard source.size > header.kernelOffset + 0x200 else {
                throw .damaged("truncated: ends before its kernel's entry")
            }
            guard entry.loadAddress >= Layout.highMemoryBase.value,
                entry.loadAddress < Layout.holeStart.value, Page.isAligned(entry.loadAddress)
            else { throw .damaged("wants to be loaded at 0x\(hex(entry.loadAddress))") }
            return (header.kernelOffset, entry)
        }
        let start = GuestAddress(image.loadAddress)
        let kernelSize = source.size - kernelOffset
        guard let needed = GuestRange(start: start, sizeInBytes: max(image.sizeInMemory, kernelSize)),
            memory.isRAM(needed), needed.start >= Layout.highMemoryBase
        else {
            throw .badImage(
                "\(name): needs \(image.sizeInMemory >> 20) MiB from \(start) on, more than the guest's"
                    + " \(memory.sizeInBytes >> 20) MiB: give it more --memory")
        }
        try memoryAccess { () throws(GuestMemoryError) in
            try memory.readFile(file, at: kernelOffset, count: kernelSize, to: start)
        }
        let initrd = try loadInitrd(above: needed.end, limit: GuestAddress(image.initrdLimit))
        try writeCommandLine()
        try writeBootParameters(setupHeader: image.setupHeader, initrd: initrd)
        return try linux64(entry: start.value + 0x200)
    }

    private func linux64(entry: UInt64) throws(HypervisorError) -> EntryPoint {
        let tables = try PageTables(in: memory, forUserMode: false)
        return EntryPoint(
            address: entry, mode: .linux64(bootParameters: Layout.bootParameters, pageTables: tables.root))
    }

    private func writeCommandLine() throws(HypervisorError) {
        try memoryAccess { () throws(GuestMemoryError) in
            try memory.write(Array(commandLine.utf8) + [0], at: Layout.commandLine)
        }
    }

    // MARK: initrd

    /// Reads all initrds into one, as high as it may be.
    private func loadInitrd(above kernelEnd: GuestAddress, limit: GuestAddress) throws(HypervisorError)
        -> GuestRange?
    {
        if initrds.isEmpty { return nil }
        var join = InitrdJoin()
        for file in initrds {
            let size = try hypervisorSystem { () throws(LinuxError) in try file.descriptor.fileSize() }
            guard size > 0, join.append(size) else {
                throw .badImage("\(file.path): an empty or absurd initrd of \(size) bytes")
            }
        }
        let total = join.sizeInBytes
        let top = min(memory.regions[0].range.end.value, limit.value &+ 1) & ~(Page.size - 1)
        guard let padded = Page.roundUp(total), padded <= top, top - padded >= kernelEnd.value else {
            throw .badImage(
                "\(initrds.map(\.path).joined(separator: ", ")): an initrd of \(total) bytes does not fit between the kernel's end"
                    + " at \(kernelEnd) and 0x\(hex(top)): give the guest more --memory")
        }
        let start = GuestAddress(top - padded)
        for (file, piece) in zip(initrds, join.pieces) {
            try memoryAccess { () throws(GuestMemoryError) in
                try memory.readFile(
                    file.descriptor, at: 0, count: piece.size, to: GuestAddress(start.value + piece.offset))
            }
        }
        return GuestRange(start: start, sizeInBytes: total)
    }

    // MARK: PVH

    /// hvm_start_info and what it points to (Xen's public/arch-x86/hvm/start_info.h).
    private func writeStartInfo(initrd: GuestRange?) throws(HypervisorError) {
        let moduleList: UInt64 = Layout.startInfo.value + 56
        let memoryMap = moduleList + 32
        var info = ByteWriter()
        info.put(UInt32(0x336E_C578))
        info.put(UInt32(1))
        info.put(UInt32(0))
        info.put(UInt32(initrd == nil ? 0 : 1))
        info.put(initrd == nil ? UInt64(0) : moduleList)
        info.put(Layout.commandLine.value)
        info.put(Layout.acpiTables.value)
        info.put(memoryMap)
        info.put(UInt32(map.entries.count))
        info.put(UInt32(0))
        info.put(initrd?.start.value ?? 0)
        info.put(initrd?.sizeInBytes ?? 0)
        info.put(UInt64(0))
        info.put(UInt64(0))
        for entry in map.entries {
            info.put(entry.range.start.value)
            info.put(entry.range.sizeInBytes)
            info.put(entry.kind.rawValue)
            info.put(UInt32(0))
        }
        precondition(info.bytes.count <= Int(Page.size), "start info fits its page")
        try memoryAccess { () throws(GuestMemoryError) in try memory.write(info.bytes, at: Layout.startInfo) }
    }

    // MARK: 64-bit protocol

    /// boot_params (Linux's Documentation/arch/x86/zero-page.rst).
    private func writeBootParameters(setupHeader: [UInt8]?, initrd: GuestRange?) throws(HypervisorError) {
        var page = ByteWriter()
        page.pad(to: Int(Page.size))
        for (offset, byte) in (setupHeader ?? []).enumerated() { page.set(byte, at: 0x1F1 + offset) }
        if setupHeader == nil {
            page.set(UInt16(0xAA55), at: 0x1FE)
            page.set(BzImageHeader.magic, at: 0x202)
            page.set(UInt16(0x020F), at: 0x206)
            page.set(UInt8(1), at: 0x211)  // LOADED_HIGH
        }
        page.set(Layout.acpiTables.value, at: 0x070)
        page.set(UInt8(0xFF), at: 0x210)  // type_of_loader: undefined
        page.set(UInt32(truncatingIfNeeded: initrd?.start.value ?? 0), at: 0x218)
        page.set(UInt32(truncatingIfNeeded: initrd?.sizeInBytes ?? 0), at: 0x21C)
        page.set(UInt32(truncatingIfNeeded: Layout.commandLine.value), at: 0x228)
        page.set(UInt8(map.entries.count), at: 0x1E8)
        for (index, entry) in map.entries.enumerated() {
            let offset = 0x2D0 + index * 20
            page.set(entry.range.start.value, at: offset)
            page.set(entry.range.sizeInBytes, at: offset + 8)
            page.set(entry.kind.rawValue, at: offset + 16)
        }
        try memoryAccess { () throws(GuestMemoryError) in
            try memory.write(page.bytes, at: Layout.bootParameters)
        }
    }
}
