public import FrameStore
public import LinuxHost

internal import CLinux
internal import Glibc

/// Frames in a sparse memory file whose size is fixed for ever, so that nobody can truncate it: that would take pages
/// from under guests. It is written by pwrite(2) only; there is no mapping of it here.
public final class MemfdBacking: FrameBacking {
    private let file: OwnedDescriptor
    private var scratch = [UInt8](repeating: 0, count: 4096)

    public init(named name: String = "mingle-store") throws(LinuxError) {
        file = try .memoryFile(named: name)
        // 2^60 covers every segment; only pages that are written take memory.
        try file.truncate(to: 1 << 60)
        // Against accidents and other users; a process of the same user can undo it (docs/security.md).
        guard fchmod(file.number, 0o400) == 0 else { throw .current("fchmod", name) }
        try file.seal([.shrink, .grow, .seal])
    }

    /// The file again, for reading only: for clients.
    public func readOnlyDescriptor() throws(LinuxError) -> OwnedDescriptor {
        try .open("/proc/self/fd/\(file.number)", flags: O_RDONLY)
    }

    /// Bytes of memory that the file takes.
    public func allocatedBytes() -> UInt64 {
        var status = stat()
        // SAFETY: a live local.
        guard unsafe fstat(file.number, &status) == 0 else { return 0 }
        return UInt64(status.st_blocks) * 512
    }

    public func write(_ bytes: [UInt8], at location: FrameLocation) throws(FrameStoreError) {
        var done = 0
        while done < bytes.count {
            let written = unsafe bytes.withUnsafeBytes { buffer in
                // SAFETY: `done` < count, so the rest of the buffer is readable.
                unsafe pwrite(
                    file.number, buffer.baseAddress! + done, buffer.count - done,
                    Int(location.fileOffset) + done)
            }
            if written < 0, errno == EINTR { continue }
            guard written > 0 else {
                throw .lost("a frame could not be written: \(LinuxError.current("pwrite"))")
            }
            done += written
        }
    }

    public func copy(from old: FrameLocation, to new: FrameLocation) throws(FrameStoreError) {
        let bytes: [UInt8]
        do throws(LinuxError) { bytes = try file.read(count: 4096, at: old.fileOffset) } catch {
            throw .lost("a frame could not be read: \(error)")
        }
        guard bytes.count == 4096 else { throw .lost("a frame could not be read whole") }
        try write(bytes, at: new)
    }

    public func matches(_ bytes: [UInt8], at location: FrameLocation) -> Bool {
        guard bytes.count == scratch.count else { return false }
        // SAFETY: the scratch buffer has 4096 bytes, and both are alive for the calls.
        return unsafe scratch.withUnsafeMutableBytes { scratch in
            guard unsafe pread(file.number, scratch.baseAddress, 4096, Int(location.fileOffset)) == 4096
            else {
                return false
            }
            return unsafe bytes.withUnsafeBytes {
                unsafe memcmp($0.baseAddress!, scratch.baseAddress!, 4096) == 0
            }
        }
    }

    public func discard(_ location: FrameLocation, count: Int) {
        #if DEBUG
            // Whoever still maps a freed frame shall see it.
            let poison = [UInt8](repeating: 0xDB, count: 4096)
            for page in 0..<count { try? write(poison, at: location.advanced(by: page)) }
        #endif
        // Cannot fail on a memory file, whose seals allow it; a failure would only keep memory.
        _ = mingle_punch_hole(file.number, location.fileOffset, UInt64(count) << 12)
    }
}
