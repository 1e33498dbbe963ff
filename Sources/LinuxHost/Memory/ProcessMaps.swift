internal import CLinux
internal import Glibc

/// The mappings of this process (/proc/self/maps), through a descriptor that is opened once and a buffer of fixed size. One
/// thread at a time.
package final class ProcessMaps {
    /// A line: `start-end permissions offset device inode path`.
    package struct Entry: Equatable {
        package var start: UInt = 0
        package var end: UInt = 0
        package var isShared = false
        package var inode: UInt64 = 0
    }

    /// Takes lines apart byte by byte; allocates nothing.
    package struct Parser {
        private var entry = Entry()
        private var field = 0
        private var position = 0
        package init() {}

        /// - Returns: the mapping whose line ends with this byte.
        package mutating func take(_ byte: UInt8) -> Entry? {
            if byte == UInt8(ascii: "\n") {
                let found = field >= 5 ? entry : nil
                self = Parser()
                return found
            }
            if byte == UInt8(ascii: " ") || byte == UInt8(ascii: "-") && field == 0 {
                // Behind the inode the path follows, which may hold anything.
                if field < 6, position > 0 { (field, position) = (field + 1, 0) }
                return nil
            }
            // Both bounds are before the first space: the dash between them counts as one.
            switch field {
            case 0: entry.start = entry.start << 4 | UInt(Self.digit(byte))
            case 1: entry.end = entry.end << 4 | UInt(Self.digit(byte))
            case 2: if position == 3 { entry.isShared = byte == UInt8(ascii: "s") }
            case 5: entry.inode = entry.inode &* 10 &+ UInt64(Self.digit(byte))
            default: break
            }
            position += 1
            return nil
        }

        private static func digit(_ byte: UInt8) -> UInt8 {
            byte < UInt8(ascii: "a")
                ? (byte &- UInt8(ascii: "0")) & 15 : (byte &- UInt8(ascii: "a") &+ 10) & 15
        }
    }

    private let file: OwnedDescriptor
    /// The kernel gives a page at a time.
    private var buffer = [UInt8](repeating: 0, count: 4096)

    package init() throws(LinuxError) { file = try .open("/proc/self/maps", flags: O_RDONLY) }

    /// Calls `body` for each mapping, in order of address.
    package func forEach(_ body: (Entry) -> Void) throws(LinuxError) {
        var parser = Parser()
        var offset: UInt64 = 0
        while true {
            let count = try OwnedDescriptor.readBytes(of: file.number, into: &buffer, at: offset)
            for index in 0..<count { if let entry = parser.take(buffer[index]) { body(entry) } }
            if count < buffer.count { return }
            offset += UInt64(count)
        }
    }
}
