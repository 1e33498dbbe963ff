internal import CLinux
internal import Glibc

/// Owns a mapping made by mmap(2) and unmaps it when it goes. The only place where Mingle maps memory.
@safe
public struct MemoryMapping: ~Copyable, @unchecked Sendable {
    /// First byte (HVA).
    @unsafe public let base: UnsafeMutableRawPointer
    public let sizeInBytes: Int

    /// Guest RAM: a shared mapping of the whole of a memory file, allocated page by page on first use, left out of
    /// core dumps and of children.
    public static func guestMemory(
        of file: borrowing OwnedDescriptor, sizeInBytes: UInt64
    ) throws(LinuxError) -> MemoryMapping {
        let mapping = try MemoryMapping(
            sizeInBytes: sizeInBytes, protection: PROT_READ | PROT_WRITE,
            flags: MAP_SHARED | MAP_NORESERVE, descriptor: file.number, subject: "guest RAM")
        // SAFETY: advice on the range just mapped, which this value owns.
        guard unsafe madvise(mapping.base, mapping.sizeInBytes, Int32(MADV_DONTFORK)) == 0,
            unsafe madvise(mapping.base, mapping.sizeInBytes, Int32(MADV_DONTDUMP)) == 0
        else { throw .current("madvise", "guest RAM") }
        return mapping
    }

    /// Guest RAM of private anonymous memory that KSM may merge (madvise(2), MADV_MERGEABLE).
    public static func mergeableGuestMemory(sizeInBytes: UInt64) throws(LinuxError) -> MemoryMapping {
        let mapping = try anonymous(sizeInBytes: sizeInBytes)
        for advice in [MADV_DONTFORK, MADV_DONTDUMP, MADV_MERGEABLE] {
            // SAFETY: advice on the range just mapped, which this value owns.
            guard unsafe madvise(mapping.base, mapping.sizeInBytes, Int32(advice)) == 0 else {
                throw .current("madvise", advice == MADV_MERGEABLE ? "guest RAM, for KSM" : "guest RAM")
            }
        }
        return mapping
    }

    /// A memory file that another process reads: shared, left out of core dumps and of children.
    public static func shared(
        of file: borrowing OwnedDescriptor, sizeInBytes: UInt64, subject: String
    ) throws(LinuxError) -> MemoryMapping {
        let mapping = try MemoryMapping(
            sizeInBytes: sizeInBytes, protection: PROT_READ | PROT_WRITE, flags: MAP_SHARED,
            descriptor: file.number, subject: subject)
        // SAFETY: advice on the range just mapped, which this value owns.
        guard unsafe madvise(mapping.base, mapping.sizeInBytes, Int32(MADV_DONTFORK)) == 0,
            unsafe madvise(mapping.base, mapping.sizeInBytes, Int32(MADV_DONTDUMP)) == 0
        else { throw .current("madvise", subject) }
        return mapping
    }

    /// Zeroed private memory, allocated page by page on first use.
    public static func anonymous(sizeInBytes: UInt64) throws(LinuxError) -> MemoryMapping {
        try MemoryMapping(
            sizeInBytes: sizeInBytes, protection: PROT_READ | PROT_WRITE,
            flags: MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, descriptor: -1,
            subject: "\(sizeInBytes) bytes")
    }

    /// What a driver shares through its descriptor (kvm_run, for one), readable and writable.
    public static func device(
        _ device: borrowing OwnedDescriptor, sizeInBytes: UInt64
    ) throws(LinuxError) -> MemoryMapping {
        try MemoryMapping(
            sizeInBytes: sizeInBytes, protection: PROT_READ | PROT_WRITE, flags: MAP_SHARED,
            descriptor: device.number, subject: "device memory")
    }

    private init(
        sizeInBytes: UInt64, protection: Int32, flags: Int32, descriptor: Int32, subject: String
    ) throws(LinuxError) {
        guard let size = Int(exactly: sizeInBytes), size > 0 else {
            throw LinuxError(operation: "mmap", code: EINVAL, subject: subject)
        }
        // SAFETY: no fixed address, so no existing mapping is touched; the result is checked.
        let address = unsafe mmap(nil, size, /* prot: */ protection, /* flags: */ flags, descriptor, 0)
        guard let address = unsafe address, unsafe address != MAP_FAILED else {
            throw .current("mmap", subject)
        }
        unsafe base = address
        self.sizeInBytes = size
    }

    /// Allocates the pages of a range that is about to be written, in one call instead of a fault for each. Only a
    /// matter of time: where the kernel cannot, nothing happens.
    package func allocate(_ offset: Int, _ count: Int) {
        precondition(offset >= 0 && count >= 0 && offset <= sizeInBytes - count, "a range of the mapping")
        let start = offset & ~0xFFF
        guard count >= 64 << 10 else { return }
        // SAFETY: a range of our mapping (from a page's start; the kernel rounds its end up), whose contents stay.
        // MADV_POPULATE_WRITE, Linux 5.14 (asm-generic/mman-common.h).
        _ = unsafe madvise(base + start, offset + count - start, 23)
    }

    /// Takes away everything that is mapped here: it reads as zeros from then on, and takes no memory. Where the kernel
    /// cannot, nothing happens.
    package func discard() {
        let flags = MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
        // SAFETY: exactly the range that this value owns, which stays mapped, so pointers into it stay valid.
        _ = unsafe mmap(base, sizeInBytes, /* prot: */ PROT_READ | PROT_WRITE, /* flags: */ flags, -1, 0)
    }

    /// Leaves the range as it is: something else may be there by now.
    package consuming func abandon() { discard self }

    deinit {
        // SAFETY: the range is owned by this value, which is going; nobody may hold a pointer into it any more.
        _ = unsafe munmap(base, sizeInBytes)
    }
}
