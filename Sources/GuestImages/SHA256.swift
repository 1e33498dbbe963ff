import CLibMD

/// SHA-256 (FIPS 180-4), by libmd. Package indexes name this digest, and a digest also names what is built here
/// in the cache.
struct SHA256 {
    private var context = SHA2_CTX()

    init() {
        // SAFETY: fills a live value of ours.
        unsafe SHA256Init(&context)
    }

    /// The digest in lower-case hexadecimal.
    static func hexadecimalDigest(of bytes: [UInt8]) -> String {
        var hash = SHA256()
        hash.update(bytes)
        return hash.finish()
    }

    mutating func update(_ bytes: [UInt8]) {
        // SAFETY: the array is alive for the call and as long as said; the context was initialised.
        unsafe SHA256Update(&context, bytes, bytes.count)
    }

    /// The digest of all that was given; nothing may be added afterwards.
    mutating func finish() -> String {
        var digest = [UInt8](repeating: 0, count: Int(SHA256_DIGEST_LENGTH))
        // SAFETY: the array has as many bytes as a digest; the context was initialised.
        unsafe SHA256Final(&digest, &context)
        return digest.map { hexadecimal($0) }.joined()
    }
}
