internal import CLinux
internal import Glibc

/// How long tasks have waited for memory since the start of all, in microseconds.
public struct MemoryStalls: Equatable, Sendable {
    /// Some task waited.
    public var someMicroseconds: UInt64
    /// All tasks that had work to do waited.
    public var fullMicroseconds: UInt64

    public init(someMicroseconds: UInt64, fullMicroseconds: UInt64) {
        (self.someMicroseconds, self.fullMicroseconds) = (someMicroseconds, fullMicroseconds)
    }

    /// Reads the text of a file of pressure; nil if it is none.
    public init?(text: String) {
        var totals: [Substring: UInt64] = [:]
        for line in text.split(separator: "\n") {
            let words = line.split(separator: " ")
            guard let name = words.first, let total = words.last, total.hasPrefix("total=") else { continue }
            totals[name] = UInt64(total.dropFirst(6))
        }
        guard let some = totals["some"], let full = totals["full"] else { return nil }
        self.init(someMicroseconds: some, fullMicroseconds: full)
    }
}

/// The kernel's account of waiting for memory (Documentation/accounting/psi.rst): of our control group, or of the host if
/// that has none. May be used by any thread.
public final class PressureFile: Sendable {
    public let path: String
    /// Becomes ready (POLLPRI) when tasks have waited for a while; nil where the kernel does not allow it to this user.
    private let trigger: OwnedDescriptor?
    /// To be read; nil where the kernel does not count.
    private let file: OwnedDescriptor?
    /// 150 ms in 2 s, the shortest window that users without privileges may ask for.
    private static let condition = "some 150000 2000000"

    /// - Parameter root: a folder in front of /proc and /sys, for tests.
    public init(root: String = "") {
        path = Self.find(root: root)
        trigger = Self.makeTrigger(path)
        file = try? .open(path, flags: O_RDONLY)
    }

    private static func find(root: String) -> String {
        let membership = ControlGroupMembership(root: root)
        if let group = membership.unified, group != "/" {
            let path = ControlGroupMembership.unifiedFolder(root: root) + group + "/memory.pressure"
            if SystemCall.text(of: path) != nil { return path }
        }
        return root + "/proc/pressure/memory"
    }

    private static func makeTrigger(_ path: String) -> OwnedDescriptor? {
        guard let file = try? OwnedDescriptor.open(path, flags: O_RDWR | O_NONBLOCK) else { return nil }
        let bytes = Array(condition.utf8) + [0]
        // SAFETY: the array is alive for the call and as long as said.
        guard unsafe write(file.number, bytes, bytes.count) == bytes.count else { return nil }
        return file
    }

    /// To poll for POLLPRI; -1, which poll(2) passes over, where there is none.
    public var descriptor: Int32 {
        switch trigger {
        case .some(let file): file.number
        case .none: -1
        }
    }

    /// nil where the kernel does not count.
    public func stalls() -> MemoryStalls? {
        switch file {
        case .some(let file):
            (try? file.read(count: 256, at: 0)).flatMap {
                MemoryStalls(text: String(decoding: $0, as: UTF8.self))
            }
        case .none: nil
        }
    }
}
