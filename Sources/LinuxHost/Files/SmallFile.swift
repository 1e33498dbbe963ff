/// Small files of /proc and /sys that hold numbers.
package enum SmallFile {
    package static func number(in path: String) -> UInt64? {
        SystemCall.text(of: path).flatMap { UInt64($0.prefix { $0.isNumber }) }
    }

    /// Numbers behind names, one pair a line: `name number ...` or `name: number ...`.
    package static func table(_ text: String) -> [Substring: UInt64] {
        var found: [Substring: UInt64] = [:]
        for line in text.split(separator: "\n") {
            let fields = line.split { $0 == " " || $0 == "\t" }
            guard fields.count >= 2, let number = UInt64(fields[1]) else { continue }
            found[fields[0].last == ":" ? fields[0].dropLast() : fields[0]] = number
        }
        return found
    }
}
