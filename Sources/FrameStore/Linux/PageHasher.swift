internal import CXXHash

/// The keyed hash of pages: XXH3, 128 bits, with the domain's secret.
public struct PageHasher: Sendable {
    /// Bytes of a secret.
    public static let secretSize = 192
    private let secret: [UInt8]

    /// - Parameter secret: ``secretSize`` random bytes, the same for all members of the domain.
    /// - Returns: nil when there are not as many.
    public init?(secret: [UInt8]) {
        guard secret.count == Self.secretSize else { return nil }
        self.secret = secret
    }

    public func callAsFunction(_ bytes: [UInt8]) -> ContentHash {
        // SAFETY: the array is alive for the call.
        unsafe bytes.withUnsafeBytes { unsafe hash($0) }
    }

    /// As above, of memory that nobody changes meanwhile, or whose change makes the hash worthless, no more.
    @unsafe
    public func hash(_ bytes: UnsafeRawBufferPointer) -> ContentHash {
        // SAFETY: both buffers are alive for the call; the secret is longer than XXH3_SECRET_SIZE_MIN (136).
        let value = unsafe secret.withUnsafeBytes { secret in
            unsafe XXH3_128bits_withSecret(bytes.baseAddress, bytes.count, secret.baseAddress, secret.count)
        }
        return ContentHash(low: value.low64, high: value.high64)
    }
}
