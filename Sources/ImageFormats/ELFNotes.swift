/// Finds notes in a note segment of an ELF file (System V gABI, "Note Section"). Kernels and payloads say by notes how
/// they are entered. The bytes are not trusted, and nobody agrees on how they are aligned: Linux aligns names and
/// descriptors to 4 whatever the segment's alignment is, the gABI aligns their places to 8 in an 8-aligned segment, and
/// QEMU rounds their sizes up to that alignment.
public enum ELFNotes {
    /// Bytes of notes that are searched in a file; kernels have some hundred.
    public static let maximumSize = 1 << 20

    /// A note's header: the sizes of name and descriptor, and the type, 4 bytes each.
    private static let headerSize = 12

    /// The rule by which one note follows another.
    private struct Layout {
        let alignment: Int
        /// Whether it is places from the segment's start that are aligned, or sizes.
        let alignsPlaces: Bool

        func end(of place: Int, size: Int) -> Int {
            alignsPlaces ? rounded(place + size) : place + rounded(size)
        }

        private func rounded(_ value: Int) -> Int { (value + alignment - 1) & ~(alignment - 1) }
    }

    /// What was found.
    public struct Search: Equatable, Sendable {
        /// Descriptors of the notes of that name and type, likeliest first.
        public var descriptors: [[UInt8]] = []
        /// What ended the search before the segment's end, for people; nil if nothing did.
        public var damage: String?

        public init() {}

        /// Adds what was found in another segment.
        public mutating func add(_ other: Search) {
            descriptors += other.descriptors
            damage = damage ?? other.damage
        }
    }

    /// Looks for notes.
    /// - Parameters:
    ///   - name: without its NUL.
    ///   - bytes: of the segment.
    ///   - alignment: what its program header says (p_align).
    public static func search(name: String, type: UInt32, in bytes: [UInt8], alignment: UInt64) -> Search {
        var result = Search()
        var layouts = [Layout(alignment: 4, alignsPlaces: true)]
        if alignment == 8 {
            layouts += [
                Layout(alignment: 8, alignsPlaces: false), Layout(alignment: 8, alignsPlaces: true),
            ]
        }
        var damages: [String] = []
        for layout in layouts {
            let damage = walk(bytes, layout) { place, descriptor, kind in
                guard kind == type, isName(name, bytes, at: place) else { return }
                let found = Array(bytes[descriptor])
                if !result.descriptors.contains(found) { result.descriptors.append(found) }
            }
            if let damage { damages.append(damage) }
        }
        // A segment that one of the rules fits is sound.
        if damages.count == layouts.count { result.damage = damages[0] }
        return result
    }

    /// Calls `body` with the place of each note, the range of its descriptor and its type.
    /// - Returns: what ended it early.
    private static func walk(
        _ bytes: [UInt8], _ layout: Layout, _ body: (_ place: Int, Range<Int>, UInt32) -> Void
    ) -> String? {
        var place = 0
        while bytes.count - place >= headerSize {
            let nameSize = Int(number(bytes, at: place))
            let size = Int(number(bytes, at: place + 4))
            let descriptor = layout.end(of: place + headerSize, size: nameSize)
            guard nameSize <= bytes.count, size <= bytes.count, descriptor + size <= bytes.count else {
                return "a note at byte \(place) reaches beyond its segment"
            }
            body(place, descriptor..<descriptor + size, number(bytes, at: place + 8))
            place = layout.end(of: descriptor, size: size)
        }
        return nil
    }

    /// A name ends at its first NUL, or where its size says.
    private static func isName(_ name: String, _ bytes: [UInt8], at place: Int) -> Bool {
        let start = place + headerSize
        let field = bytes[start...].prefix(Int(number(bytes, at: place)))
        return field.prefix { $0 != 0 }.elementsEqual(name.utf8)
    }

    private static func number(_ bytes: [UInt8], at place: Int) -> UInt32 {
        (0..<4).reversed().reduce(0) { $0 << 8 | UInt32(bytes[place + $1]) }
    }
}
