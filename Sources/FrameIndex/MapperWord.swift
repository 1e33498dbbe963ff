import FrameStore

/// Names a frame, wherever its bytes are: the number of its content's entry, never 0. A frame that was freed leaves its number to
/// others.
struct FrameNumber: Hashable, Sendable {
    let value: UInt32
    init(_ value: UInt32) { self.value = value }
}

/// What a page of a client is to the store, in a word: nothing (0), sighted (the number of the content's entry), a mapper of a
/// frame (the number of its entry, with two flags), or mapped to the copies of a pattern (the number of that).
struct MapperWord: Equatable {
    private static let mapper: UInt32 = 1 << 31
    private static let parity: UInt32 = 1 << 30
    /// With `mapper`; without it, the number is a pattern's.
    private static let stray: UInt32 = 1 << 29
    private static let number: UInt32 = stray - 1

    let raw: UInt32
    init(raw: UInt32) { self.raw = raw }

    static let nothing = MapperWord(raw: 0)
    static func sighted(_ number: UInt32) -> Self { Self(raw: number) }
    static func uniform(_ pattern: Int) -> Self { Self(raw: stray | UInt32(pattern)) }
    /// - Parameters:
    ///   - parity: of the frame's place, as the mapper knows it.
    ///   - isStray: none of the client's numberings leads to the page.
    static func mapper(of frame: FrameNumber, parity: Bool, isStray: Bool = false) -> Self {
        Self(
            raw: mapper | (parity ? Self.parity : 0) | (isStray ? stray : 0) | frame.value)
    }

    var isNothing: Bool { raw == 0 }
    var isMapper: Bool { raw & Self.mapper != 0 }
    var isUniform: Bool { raw & (Self.mapper | Self.stray) == Self.stray }
    var isSighted: Bool { raw != 0 && raw & (Self.mapper | Self.stray) == 0 }
    /// A reference is counted for it.
    var isLeased: Bool { isMapper || isUniform }
    var number: UInt32 { raw & Self.number }
    var frame: FrameNumber { FrameNumber(number) }
    var hasParity: Bool { raw & Self.parity != 0 }
    var isStray: Bool { isMapper && raw & Self.stray != 0 }
}
