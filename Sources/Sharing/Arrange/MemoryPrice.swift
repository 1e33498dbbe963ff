/// What the host pays, in bytes of memory: by this it is decided which pages keep their sharing and which mappings are worth their
/// page moves. Nothing else decides: there is no number of mappings that a guest should have.
struct MemoryPrice: Equatable {
    /// A page that becomes the guest's own, while somebody else maps its frame.
    static let page = 4096
    /// A mapping: `vm_area_struct` and `anon_vma`, as the slab counts them (docs/benchmarks.md).
    static let leastMapping = 272
    /// A process without mappings can share nothing more: near its limit one is worth this.
    static let mostMapping = 8 * page
    /// Of the mappings that a process may have, the share that costs only their memory.
    static let plenty = 0.75

    /// A mapping.
    let mapping: Int
    /// A page that is the guest's own anyway and has to be copied for an arrangement: its time. 64 are copied for a mapping that
    /// is not scarce, not more.
    static let move = leastMapping / 64

    /// - Parameter mapping: bytes; by default, what one costs while mappings are no concern.
    init(mapping: Int = leastMapping) { self.mapping = mapping }

    /// - Parameters:
    ///   - mappings: that guest memory consists of.
    ///   - most: of which it may consist.
    init(mappings: Int, of most: Int) {
        let used = Double(mappings) / Double(max(most, 1))
        let scarcity = min(max((used - Self.plenty) / (1 - Self.plenty), 0), 1)
        mapping = Self.leastMapping + Int(scarcity * scarcity * Double(Self.mostMapping - Self.leastMapping))
    }
}
