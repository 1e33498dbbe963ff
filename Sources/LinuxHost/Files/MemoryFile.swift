internal import CLinux

/// What can be forbidden for a memory file for ever (fcntl(2), F_ADD_SEALS).
public struct FileSeals: OptionSet, Sendable {
    public let rawValue: Int32
    public init(rawValue: Int32) { self.rawValue = rawValue }
    /// No more seals.
    public static let seal = FileSeals(rawValue: 1)
    public static let shrink = FileSeals(rawValue: 2)
    public static let grow = FileSeals(rawValue: 4)
}

extension OwnedDescriptor {
    /// Adds seals to a memory file.
    public func seal(_ seals: FileSeals) throws(LinuxError) {
        // F_ADD_SEALS (include/uapi/linux/fcntl.h), declared only under _GNU_SOURCE.
        try checked(mingle_fcntl(number, 1033, seals.rawValue), "fcntl", "F_ADD_SEALS")
    }

    /// The seals of a memory file; fails with EINVAL for any other kind of file.
    public func seals() throws(LinuxError) -> FileSeals {
        // F_GET_SEALS
        FileSeals(rawValue: try checked(mingle_fcntl(number, 1034, 0), "fcntl", "F_GET_SEALS"))
    }
}
