/// SHA-256 (FIPS 180-4). Package indexes name this digest, and a digest also names what is built here in the cache.
struct SHA256 {
    private static let constants: [UInt32] = [
        0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4,
        0xab1c_5ed5,
        0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7,
        0xc19b_f174,
        0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc,
        0x76f9_88da,
        0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351,
        0x1429_2967,
        0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e,
        0x9272_2c85,
        0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585,
        0x106a_a070,
        0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f,
        0x682e_6ff3,
        0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7,
        0xc671_78f2,
    ]
    private static let blockSize = 64

    private var state: (UInt32, UInt32, UInt32, UInt32, UInt32, UInt32, UInt32, UInt32) = (
        0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19
    )
    private var rest: [UInt8] = []
    private var count: UInt64 = 0

    /// The digest in lower-case hexadecimal.
    static func hexadecimalDigest(of bytes: [UInt8]) -> String {
        var hash = SHA256()
        hash.update(bytes)
        return hash.finish()
    }

    mutating func update(_ bytes: [UInt8]) {
        count += UInt64(bytes.count)
        let all = rest.isEmpty ? bytes : rest + bytes
        let whole = all.count / Self.blockSize * Self.blockSize
        compress(all, upTo: whole)
        rest = Array(all[whole...])
    }

    /// The digest of all that was given; nothing may be added afterwards.
    mutating func finish() -> String {
        var last = rest
        last.append(0x80)
        while last.count % Self.blockSize != 56 { last.append(0) }
        let bits = count &* 8
        for shift in stride(from: UInt64(56), through: 0, by: -8) {
            last.append(UInt8(truncatingIfNeeded: bits >> shift))
        }
        compress(last, upTo: last.count)
        let words = [state.0, state.1, state.2, state.3, state.4, state.5, state.6, state.7]
        return words.flatMap { word in
            [24, 16, 8, 0].map { hexadecimal(UInt8(truncatingIfNeeded: word >> UInt32($0))) }
        }.joined()
    }

    /// Mixes in the blocks of the first `end` bytes, a multiple of the block size.
    private mutating func compress(_ bytes: [UInt8], upTo end: Int) {
        // Pointers instead of arrays: tens of megabytes pass here, also in builds without optimisation.
        // SAFETY: `at + 64 <= end <= bytes.count`; the schedule and the constants have 64 words and are indexed by
        // 0..<64; none of the pointers leaves the closures.
        unsafe bytes.withUnsafeBufferPointer { buffer in
            unsafe Self.constants.withUnsafeBufferPointer { constants in
                unsafe withUnsafeTemporaryAllocation(of: UInt32.self, capacity: Self.blockSize) { schedule in
                    guard let source = buffer.baseAddress, let words = schedule.baseAddress,
                        let table = constants.baseAddress
                    else { return }
                    var at = 0
                    while at < end {
                        unsafe Self.mix(&state, source + at, words, table)
                        at += Self.blockSize
                    }
                }
            }
        }
    }

    private static func mix(
        _ state: inout (UInt32, UInt32, UInt32, UInt32, UInt32, UInt32, UInt32, UInt32),
        _ block: UnsafePointer<UInt8>, _ words: UnsafeMutablePointer<UInt32>,
        _ constants: UnsafePointer<UInt32>
    ) {
        var index = 0
        // SAFETY: the caller gives 64 bytes, 64 words and 64 constants; every index stays below 64.
        while index < 16 {
            unsafe words[index] =
                UInt32(block[4 &* index]) &<< 24 | UInt32(block[4 &* index &+ 1]) &<< 16
                | UInt32(block[4 &* index &+ 2]) &<< 8 | UInt32(block[4 &* index &+ 3])
            index &+= 1
        }
        while index < 64 {
            let (x, y) = unsafe (words[index &- 15], words[index &- 2])
            let small = (x &>> 7 | x &<< 25) ^ (x &>> 18 | x &<< 14) ^ (x &>> 3)
            let large = (y &>> 17 | y &<< 15) ^ (y &>> 19 | y &<< 13) ^ (y &>> 10)
            unsafe words[index] = words[index &- 16] &+ small &+ words[index &- 7] &+ large
            index &+= 1
        }
        var (a, b, c, d, e, f, g, h) = state
        index = 0
        while index < 64 {
            let sigma1 = (e &>> 6 | e &<< 26) ^ (e &>> 11 | e &<< 21) ^ (e &>> 25 | e &<< 7)
            let choice = (e & f) ^ (~e & g)
            let first = unsafe h &+ sigma1 &+ choice &+ constants[index] &+ words[index]
            let sigma0 = (a &>> 2 | a &<< 30) ^ (a &>> 13 | a &<< 19) ^ (a &>> 22 | a &<< 10)
            let second = sigma0 &+ ((a & b) ^ (a & c) ^ (b & c))
            (h, g, f, e) = (g, f, e, d &+ first)
            (d, c, b, a) = (c, b, a, first &+ second)
            index &+= 1
        }
        state = (
            state.0 &+ a, state.1 &+ b, state.2 &+ c, state.3 &+ d,
            state.4 &+ e, state.5 &+ f, state.6 &+ g, state.7 &+ h
        )
    }
}
