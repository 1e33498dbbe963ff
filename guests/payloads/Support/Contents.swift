import Machine

/// The finaliser of SplitMix64 (Steele, Lea, Flood, 2014): a bijection that looks random.
public func mixed(_ value: UInt64) -> UInt64 {
    var bits = value &+ 0x9E37_79B9_7F4A_7C15
    bits = (bits ^ bits >> 30) &* 0xBF58_476D_1CE4_E5B9
    bits = (bits ^ bits >> 27) &* 0x94D0_49BB_1331_11EB
    return bits ^ bits >> 31
}

/// What a page holds, as a rule from which each of its 512 words follows.
public struct PageContent: Equatable {
    /// Word `n` is `start + n * step`, mixed if `isMixed`.
    private let start: UInt64
    private let step: UInt64
    private let isMixed: Bool

    public static let wordCount: UInt64 = 512
    public static var zero: PageContent { uniform(0) }

    /// `byte` everywhere.
    public static func uniform(_ byte: UInt8) -> PageContent {
        PageContent(start: UInt64(byte) &* 0x0101_0101_0101_0101, step: 0, isMixed: false)
    }

    /// Noise that follows from `key`.
    public static func noise(_ key: UInt64) -> PageContent {
        PageContent(start: mixed(key), step: 0x9E37_79B9_7F4A_7C15, isMixed: true)
    }

    /// The same in every guest and every payload at this address.
    public static func common(at address: UInt64) -> PageContent {
        noise(0xC000_0000_0000_0000 | address / Guest.pageSize)
    }

    /// The same in every guest that asks for content number `number`, whatever the address.
    public static func shared(_ number: UInt64) -> PageContent {
        noise(0xD000_0000_0000_0000 | number)
    }

    /// This guest's own at this address; another for each `version`.
    public static func unique(_ guest: Guest, at address: UInt64, version: UInt64 = 0) -> PageContent {
        noise(mixed(mixed(mixed(guest.seed) ^ guest.index) ^ version) ^ address)
    }

    @inline(__always)
    public func word(_ number: UInt64) -> UInt64 {
        let value = start &+ number &* step
        return isMixed ? mixed(value) : value
    }

    /// Writes the page at `address`.
    public func write(to address: UInt64) {
        for number in 0..<PageContent.wordCount { machine_store64(address &+ number &* 8, word(number)) }
    }

    /// Does the page at `address` hold this, and in word `except` that `instead`?
    public func matches(_ address: UInt64, except: UInt64 = UInt64.max, instead: UInt64 = 0) -> Bool {
        for number in 0..<PageContent.wordCount {
            let expected = number == except ? instead : word(number)
            if machine_load64(address &+ number &* 8) != expected { return false }
        }
        return true
    }
}

/// A 64-bit checksum of the page at `address`, which depends on the place of every word.
public func checksum(ofPage address: UInt64) -> UInt64 {
    var sum = address
    for number in 0..<PageContent.wordCount {
        sum = ((sum << 5 | sum >> 59) ^ machine_load64(address &+ number &* 8)) &* 0x9FB2_1C65_1E98_DF25
    }
    return mixed(sum)
}
