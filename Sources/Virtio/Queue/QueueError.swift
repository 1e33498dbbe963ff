package import GuestMemory

/// A rule of virtio 1.2 (2.6, 2.7) that the driver broke. The device needs a reset then; nothing else happens.
package enum QueueError: Error, Equatable, Sendable, CustomStringConvertible {
    /// A part of the queue, an indirect table or a buffer is not all RAM, or wraps around.
    case notMemory(GuestAddress, bytes: UInt64)
    /// A part of the queue does not have its alignment, in bytes.
    case misaligned(GuestAddress, alignment: UInt64)
    /// Not a power of two, or more than the device has.
    case badSize(UInt16)
    /// The driver's index is further ahead than the queue is long.
    case indexTooFar(index: UInt16, next: UInt16)
    /// A descriptor's number that the table does not have.
    case noDescriptor(UInt16)
    /// More descriptors than the queue has, or a loop.
    case chainTooLong
    /// More than 2^32 bytes in one chain.
    case tooManyBytes
    /// A buffer of no bytes.
    case emptyBuffer
    /// A buffer for the device to read, behind one for it to write.
    case readableBehindWritable
    /// An indirect table where none was negotiated, in an indirect table, followed by another descriptor, or of a wrong length.
    case badIndirectTable

    package var description: String {
        switch self {
        case .notMemory(let address, let bytes): "\(bytes) bytes at \(address) are not all RAM"
        case .misaligned(let address, let alignment): "\(address) is no multiple of \(alignment)"
        case .badSize(let size): "a queue of \(size) descriptors"
        case .indexTooFar(let index, let next): "the driver's index jumped from \(next) to \(index)"
        case .noDescriptor(let number): "there is no descriptor \(number)"
        case .chainTooLong: "a chain has more descriptors than the queue, or never ends"
        case .tooManyBytes: "a chain has more than 4 GiB"
        case .emptyBuffer: "a buffer of no bytes"
        case .readableBehindWritable: "a buffer to be read follows one to be written"
        case .badIndirectTable: "an indirect table that may not be there, or has a wrong length"
        }
    }
}

/// Buffers that the driver hands over together, checked: all of it is RAM. The lists were read once from guest memory; the
/// bytes that they name may change at any time.
package struct DescriptorChain: Equatable, Sendable {
    /// By which the driver knows it.
    package let head: UInt16
    /// What the device may read, in order.
    package let readable: [GuestRange]
    /// What the device may write, in order; behind the readable ones.
    package let writable: [GuestRange]

    package var readableBytes: UInt64 { readable.reduce(0) { $0 + $1.sizeInBytes } }
    package var writableBytes: UInt64 { writable.reduce(0) { $0 + $1.sizeInBytes } }
}
