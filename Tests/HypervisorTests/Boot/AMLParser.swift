/// Reads the part of ACPI Machine Language that our DSDT uses (ACPI 6.5, 20.2), independently of its writer.
struct AMLParser {
    enum Value: Equatable {
        case integer(UInt64)
        case string(String)
        case buffer([UInt8])
        case package([Value])
    }
    struct Malformed: Error { let position: Int }

    private let bytes: [UInt8]
    private var position = 0
    private(set) var names: [String: Value] = [:]
    private(set) var devices: [String] = []

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    private mutating func byte() throws(Malformed) -> UInt8 {
        guard position < bytes.count else { throw Malformed(position: position) }
        position += 1
        return bytes[position - 1]
    }

    private mutating func number(_ width: Int) throws(Malformed) -> UInt64 {
        var value: UInt64 = 0
        for index in 0..<width { value |= UInt64(try byte()) << UInt64(8 * index) }
        return value
    }

    /// PkgLength: where the package ends.
    private mutating func packageEnd() throws(Malformed) -> Int {
        let start = position
        let lead = try byte()
        var length = Int(lead & 0x3F)
        if lead >> 6 > 0 {
            guard lead & 0x30 == 0 else { throw Malformed(position: start) }
            length = Int(lead & 0x0F) | Int(try number(Int(lead >> 6))) << 4
        }
        guard start + length <= bytes.count, start + length >= position else {
            throw Malformed(position: start)
        }
        return start + length
    }

    private mutating func segment() throws(Malformed) -> String {
        var name = ""
        for _ in 0..<4 { name.unicodeScalars.append(Unicode.Scalar(try byte())) }
        return name
    }

    /// Terms up to `end`, or to the end of all.
    mutating func terms(path: String, end: Int? = nil) throws(Malformed) {
        func join(_ name: String) -> String { path == "\\" ? path + name : path + "." + name }
        while position < end ?? bytes.count {
            switch try byte() {
            case 0x08:
                let name = join(try segment())
                names[name] = try value()
            case 0x10:
                let inner = try packageEnd()
                guard try byte() == 0x5C else { throw Malformed(position: position) }
                try terms(path: "\\" + segment(), end: inner)
            case 0x5B:
                guard try byte() == 0x82 else { throw Malformed(position: position) }
                let inner = try packageEnd()
                let name = join(try segment())
                devices.append(name)
                try terms(path: name, end: inner)
            default: throw Malformed(position: position)
            }
        }
        guard position == end ?? bytes.count else { throw Malformed(position: position) }
    }

    private mutating func value() throws(Malformed) -> Value {
        switch try byte() {
        case 0x00: return .integer(0)
        case 0x01: return .integer(1)
        case 0x0A: return .integer(try number(1))
        case 0x0B: return .integer(try number(2))
        case 0x0C: return .integer(try number(4))
        case 0x0D:
            var text = ""
            while case let next = try byte(), next != 0 { text.unicodeScalars.append(Unicode.Scalar(next)) }
            return .string(text)
        case 0x11:
            let end = try packageEnd()
            guard case .integer(let size) = try value(), Int(size) == end - position else {
                throw Malformed(position: position)
            }
            defer { position = end }
            return .buffer(Array(bytes[position..<end]))
        case 0x12:
            let end = try packageEnd()
            let count = try byte()
            var elements: [Value] = []
            for _ in 0..<count { elements.append(try value()) }
            guard position == end else { throw Malformed(position: position) }
            return .package(elements)
        default: throw Malformed(position: position)
        }
    }
}
