internal import GuestMemory
internal import LinuxHost

/// Page tables that a guest is entered with: an identity map by 2 MiB pages (Intel SDM vol. 3, 4.5), written into guest
/// RAM from ``Layout/pageTables`` on.
struct PageTables {
    private enum Entry {
        static let present: UInt64 = 1
        static let writable: UInt64 = 2
        static let user: UInt64 = 4
        static let accessed: UInt64 = 1 << 5
        static let dirty: UInt64 = 1 << 6
        static let large: UInt64 = 1 << 7
    }
    private static let gib: UInt64 = 1 << 30

    /// Root, for CR3.
    let root = Layout.pageTables

    /// Maps the low 4 GiB (RAM and device space), and for user mode all RAM above; kernels map that themselves.
    /// - Parameter forUserMode: reachable from ring 3, accessed and dirty bits preset, page 0 left out.
    /// - Throws: `invalidConfiguration` when the tables do not fit under 640 KiB.
    init(in memory: GuestMemory, forUserMode: Bool) throws(HypervisorError) {
        let end = forUserMode ? memory.regions.last?.range.end.value ?? 0 : 0
        let top = max(end, Layout.fourGiB.value)
        let gibCount = (top + Self.gib - 1) / Self.gib
        let firstDirectory = root.value + 2 * Page.size
        let firstTable = firstDirectory + gibCount * Page.size
        guard gibCount <= 512, firstTable + Page.size <= Layout.lowMemoryEnd.value else {
            throw .invalidConfiguration(
                "\(memory.sizeInBytes >> 30) GiB of memory: a payload can have at most 140")
        }
        let access = Entry.present | Entry.writable | (forUserMode ? Entry.user : 0)
        let used = forUserMode ? Entry.accessed | Entry.dirty : 0
        try memoryAccess { () throws(GuestMemoryError) in
            try memory.store((root.value + Page.size) | access | used, at: root)
            var pointers = ByteWriter()
            for index in 0..<gibCount {
                pointers.put((firstDirectory + index * Page.size) | access | used)
                var directory = ByteWriter()
                for entry in 0..<UInt64(512) {
                    let address = index * Self.gib + entry << 21
                    directory.put(address | access | used | Entry.large)
                }
                try memory.write(directory.bytes, at: GuestAddress(firstDirectory + index * Page.size))
            }
            try memory.write(pointers.bytes, at: GuestAddress(root.value + Page.size))
            guard forUserMode else { return }
            // The first 2 MiB by small pages, so that page 0 can be missing.
            try memory.store(firstTable | access | used, at: GuestAddress(firstDirectory))
            var table = ByteWriter()
            table.put(UInt64(0))
            for page in UInt64(1)..<512 { table.put((page << Page.shift) | access | used) }
            try memory.write(table.bytes, at: GuestAddress(firstTable))
        }
    }
}
