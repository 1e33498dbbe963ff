internal import CLinux

/// Room that the C library's heap has in reserve. An allocation that fails ends a Swift program, so whoever is about to
/// allocate asks before it begins, and puts its work off if there is not enough. Any thread may ask.
///
/// The reserve is address space at the end of the heap, got before the guest runs: it takes no memory until it is used, and
/// whatever is used of it is given back between passes. Neither a limit of address space nor one of mappings takes it away.
public enum HeapReserve {
    /// Bytes of address space that the heap keeps free at its end.
    public static let size = 8 << 20
    /// What other threads find free while memory is given back.
    private static let kept = 1 << 20

    /// Sets the heap up; once, before there are other threads that allocate much.
    public static func prepare() { mingle_heap_keep(size) }

    /// Whether so many bytes can be allocated, in one piece or in many. The heap grows for it if it can.
    public static func has(_ bytes: Int) -> Bool { mingle_heap_has(bytes) != 0 }

    /// Gives the host the memory of what is free in the heap.
    public static func giveBack() { mingle_heap_give_back(size, kept) }
}
