internal import CLinux
internal import Glibc

/// What the kernel still lets this process map. The files are opened once; asking neither opens one nor allocates. One thread
/// at a time.
public final class ProcessLimits {
    private let sizes: OwnedDescriptor?
    private let mappings: OwnedDescriptor?
    private var buffer = [UInt8](repeating: 0, count: 128)
    /// Of Linux, where it cannot be read.
    private static let usualMappings = 65530

    public init() {
        sizes = try? .open("/proc/self/statm", flags: O_RDONLY)
        mappings = try? .open("/proc/sys/vm/max_map_count", flags: O_RDONLY)
    }

    /// Mappings that a process may have (vm.max_map_count).
    public func mappingLimit() -> Int {
        let file: Int32 =
            switch mappings {
            case .some(let file): file.number
            case .none: -1
            }
        return number(0, of: file).map { Int(clamping: $0) } ?? Self.usualMappings
    }

    /// Bytes of address space that are left under RLIMIT_AS and, for memory that is or becomes private, RLIMIT_DATA; `Int.max`
    /// without limits, or when they cannot be told.
    public func addressSpaceLeft() -> Int {
        let (space, data) = (mingle_limit_of_address_space(), mingle_limit_of_data())
        if space == .max, data == .max { return .max }
        let file: Int32 =
            switch sizes {
            case .some(let file): file.number
            case .none: -1
            }
        guard let all = number(0, of: file), let own = number(5, of: file) else { return .max }
        func left(_ limit: UInt64, _ pages: UInt64) -> Int {
            limit == .max ? .max : Int(clamping: limit - min(limit, pages * Page.size))
        }
        return min(left(space, all), left(data, own))
    }

    /// Anonymous memory in bytes: private copies of guest pages, and what the process needs for itself; 0 when unknown. The
    /// kernel's quick count, which may lag behind by some pages for each CPU.
    public func anonymousBytes() -> UInt64 {
        let file: Int32 =
            switch sizes {
            case .some(let file): file.number
            case .none: -1
            }
        guard let resident = number(1, of: file), let ofFiles = number(2, of: file) else { return 0 }
        return (resident - min(resident, ofFiles)) * Page.size
    }

    /// The number behind so many others in a file's first line.
    private func number(_ index: Int, of file: Int32) -> UInt64? {
        guard let count = try? OwnedDescriptor.readBytes(of: file, into: &buffer, at: 0) else { return nil }
        var (position, field) = (0, 0)
        while position < count, field < index {
            if buffer[position] == UInt8(ascii: " ") { field += 1 }
            position += 1
        }
        var value: UInt64?
        while position < count, buffer[position] >= UInt8(ascii: "0"), buffer[position] <= UInt8(ascii: "9") {
            value = (value ?? 0) &* 10 &+ UInt64(buffer[position] - UInt8(ascii: "0"))
            position += 1
        }
        return value
    }
}
