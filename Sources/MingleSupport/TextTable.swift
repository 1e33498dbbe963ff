/// A table of left- or right-aligned columns, two spaces apart.
public struct TextTable {
    private let headings: [String]
    private let rightAligned: Set<String>
    private var rows: [[String]] = []

    /// A table with these headings; `rightAligned` names the columns of numbers.
    public init(_ headings: [String], rightAligned: Set<String> = []) {
        self.headings = headings
        self.rightAligned = rightAligned
    }

    /// Adds a row with one cell for each heading.
    public mutating func add(_ cells: [String]) {
        precondition(cells.count == headings.count, "a row has one cell for each heading")
        rows.append(cells)
    }

    /// The lines, without blanks at their ends.
    public var text: String {
        let all = [headings] + rows
        let widths = headings.indices.map { column in all.map { $0[column].count }.max() ?? 0 }
        let lines = all.map { row in
            var line = ""
            for (column, cell) in row.enumerated() {
                let pad = String(repeating: " ", count: widths[column] - cell.count)
                line +=
                    (column > 0 ? "  " : "")
                    + (rightAligned.contains(headings[column]) ? pad + cell : cell + pad)
            }
            while line.hasSuffix(" ") { line.removeLast() }
            return line
        }
        return lines.joined(separator: "\n")
    }
}

/// Lengths of time for people.
public enum Uptime {
    /// Such as `42s`, `3m05s`, `2h10m`, `4d03h`.
    public static func format(seconds: UInt64) -> String {
        func two(_ number: UInt64) -> String { number < 10 ? "0\(number)" : "\(number)" }
        switch seconds {
        case ..<60: return "\(seconds)s"
        case ..<3600: return "\(seconds / 60)m\(two(seconds % 60))s"
        case ..<86400: return "\(seconds / 3600)h\(two(seconds % 3600 / 60))m"
        default: return "\(seconds / 86400)d\(two(seconds % 86400 / 3600))h"
        }
    }
}
