public import LinuxHost

/// What can go wrong with guest memory; the text is for whoever started the guest.
public enum GuestMemoryError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The guest's memory size is zero, no multiple of a page, or larger than a guest can have.
    case invalidSize(bytes: UInt64)
    /// An access to addresses that are not RAM.
    case outOfRange(GuestAddress, count: UInt64)
    /// An index or flags of a virtqueue at an address where no access is atomic. `alignment` is in bytes.
    case misaligned(GuestAddress, alignment: Int)
    /// A file ended before all expected bytes were read into guest memory.
    case shortFile(GuestAddress, expected: UInt64, completed: UInt64)
    /// The host refused.
    case system(LinuxError)

    public var description: String {
        switch self {
        case .invalidSize(let bytes):
            "guest memory of \(bytes) bytes: must be a multiple of 4096, at least one page and at most "
                + "\(GuestMemory.maximumSizeInBytes >> 30) GiB"
        case .outOfRange(let address, let count): "\(count) bytes at guest address \(address) are not all RAM"
        case .misaligned(let address, let alignment):
            "guest address \(address) is no multiple of \(alignment)"
        case .shortFile(let address, let expected, let completed):
            "file ended after \(completed) of \(expected) bytes for guest address \(address)"
        case .system(let error): error.description
        }
    }
}
