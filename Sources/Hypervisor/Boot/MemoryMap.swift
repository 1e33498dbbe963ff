internal import GuestMemory
internal import LinuxHost

/// The memory map that a guest's kernel is given ("E820").
struct MemoryMap: Equatable {
    enum Kind: UInt32 {
        case ram = 1
        case reserved = 2
    }
    struct Entry: Equatable {
        let range: GuestRange
        let kind: Kind
    }
    let entries: [Entry]

    /// RAM but for [640 KiB, 1 MiB), where the ACPI tables lie; then what in the hole belongs to the machine.
    init(of memory: GuestMemory) {
        var entries: [Entry] = []
        func add(_ start: GuestAddress, _ end: GuestAddress, _ kind: Kind) {
            guard start < end, let range = GuestRange(start: start, sizeInBytes: end.value - start.value)
            else { return }
            entries.append(Entry(range: range, kind: kind))
        }
        let lowEnd = memory.regions[0].range.end
        add(GuestAddress(0), min(lowEnd, Layout.lowMemoryEnd), .ram)
        add(Layout.lowMemoryEnd, Layout.highMemoryBase, .reserved)
        add(Layout.highMemoryBase, lowEnd, .ram)
        // Interrupt controllers, identity map and TSS: one range up to 4 GiB, where firmware would be.
        add(Layout.ioapic, Layout.fourGiB, .reserved)
        for region in memory.regions.dropFirst() { add(region.range.start, region.range.end, .ram) }
        self.entries = entries
    }
}
