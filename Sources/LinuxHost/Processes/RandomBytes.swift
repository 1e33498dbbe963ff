internal import CLinux

/// Random bytes of the kernel.
package func randomBytes(_ count: Int) throws(LinuxError) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    // SAFETY: the array is `count` bytes long.
    try checked(unsafe mingle_random(&bytes, count), "getrandom")
    return bytes
}

/// 64 of them.
package func randomWord() throws(LinuxError) -> UInt64 {
    try randomBytes(8).reduce(0) { $0 << 8 | UInt64($1) }
}
