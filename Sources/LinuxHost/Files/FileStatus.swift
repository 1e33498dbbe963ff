package import Glibc

/// What `lstat` or `fstat` say of a file, as far as this module asks.
package struct FileStatus: Equatable {
    package let device: UInt
    package let inode: UInt
    package let mode: UInt32
    package let owner: UInt32
    package let group: UInt32
    package let size: Int
    /// What it takes of memory or disk.
    package let allocatedBytes: UInt64
    /// When its contents changed last, from 1970 on.
    package let modifiedSeconds: Int64

    package init(_ raw: stat) {
        device = raw.st_dev
        inode = raw.st_ino
        mode = raw.st_mode
        owner = raw.st_uid
        group = raw.st_gid
        size = raw.st_size
        allocatedBytes = UInt64(clamping: raw.st_blocks) * 512
        modifiedSeconds = Int64(raw.st_mtim.tv_sec)
    }

    /// As the C library's gnu_dev_major and gnu_dev_minor take a device apart.
    package var deviceMajor: UInt { device >> 8 & 0xfff | device >> 32 & ~0xfff }
    package var deviceMinor: UInt { device & 0xff | device >> 12 & 0xffff_ff00 }
    package var isDirectory: Bool { mode & UInt32(S_IFMT) == UInt32(S_IFDIR) }
    package var isSymbolicLink: Bool { mode & UInt32(S_IFMT) == UInt32(S_IFLNK) }
    package var isRegularFile: Bool { mode & UInt32(S_IFMT) == UInt32(S_IFREG) }
    package var permissions: UInt32 { mode & 0o7777 }
    package func isSameFile(as other: FileStatus) -> Bool { device == other.device && inode == other.inode }
}
