internal import GuestMemory
internal import Glibc
internal import ImageFormats
internal import LinuxHost

/// Opens a kernel or initrd that the user named. Without O_NONBLOCK a FIFO would hold us until somebody writes to it.
func openImage(_ path: String) throws(HypervisorError) -> OwnedDescriptor {
    do throws(LinuxError) {
        let file = try OwnedDescriptor.open(path, flags: O_RDONLY | O_NONBLOCK | O_NOCTTY)
        if try file.isRegularFile() { return file }
    } catch { throw .badImage("\(path): \(LinuxError.message(error.code))") }
    throw .badImage("\(path): not a regular file")
}

/// A kernel or initrd that was opened, and what the user called it.
final class ImageFile: Sendable {
    let path: String
    let descriptor: OwnedDescriptor

    init(_ path: String) throws(HypervisorError) {
        descriptor = try openImage(path)
        self.path = path
    }
}

/// All that a guest is loaded from. Opened before any of it is read: who reads it may open nothing more.
struct BootImages: Sendable {
    let kernel: ImageFile
    let initrds: [ImageFile]

    init(_ configuration: VirtualMachineConfiguration) throws(HypervisorError) {
        kernel = try ImageFile(configuration.kernelPath)
        var initrds: [ImageFile] = []
        for path in configuration.initrdPaths { initrds.append(try ImageFile(path)) }
        self.initrds = initrds
    }
}

/// The bytes of a file, valid as long as it is open.
func imageSource(_ file: borrowing OwnedDescriptor, _ name: String) throws(HypervisorError) -> ImageSource {
    let number = file.number
    let size = try hypervisorSystem { () throws(LinuxError) in try file.fileSize() }
    return ImageSource(size: size) { offset, count throws(ImageFormatError) in
        do throws(LinuxError) {
            return try OwnedDescriptor.readBytes(of: number, count: count, at: offset)
        } catch { throw .unreadable(code: error.code) }
    }
}

/// Runs `body`; what it says of an image gets the image's name.
func imageFormat<Result>(_ name: String, _ body: () throws(ImageFormatError) -> Result)
    throws(HypervisorError) -> Result
{
    do throws(ImageFormatError) { return try body() } catch {
        switch error {
        case .damaged(let reason): throw .badImage("\(name): \(reason)")
        case .unreadable(let code): throw .badImage("\(name): \(LinuxError.message(code))")
        }
    }
}

/// Builds little-endian tables.
struct ByteWriter {
    private(set) var bytes: [UInt8] = []
    mutating func put<T: FixedWidthInteger>(_ value: T) {
        for index in 0..<T.bitWidth / 8 { bytes.append(UInt8(truncatingIfNeeded: value >> T(index * 8))) }
    }
    mutating func put(_ text: String, width: Int) {
        let utf8 = Array(text.utf8.prefix(width))
        bytes += utf8 + [UInt8](repeating: 0x20, count: width - utf8.count)
    }
    mutating func put(_ more: [UInt8]) { bytes += more }
    mutating func pad(to size: Int) {
        if bytes.count < size { bytes += [UInt8](repeating: 0, count: size - bytes.count) }
    }
    /// Overwrites bytes that are there already.
    mutating func set<T: FixedWidthInteger>(_ value: T, at offset: Int) {
        for index in 0..<T.bitWidth / 8 {
            bytes[offset + index] = UInt8(truncatingIfNeeded: value >> T(index * 8))
        }
    }
}
