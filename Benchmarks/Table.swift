/// Columns with headings: the first to the left, the others to the right.
struct Table {
    private var rows: [[String]]
    init(_ headings: String...) { rows = [headings] }
    mutating func add(_ cells: String...) { rows.append(cells) }

    func show() {
        var widths = [Int](repeating: 0, count: rows[0].count)
        for row in rows {
            for (index, cell) in row.enumerated() { widths[index] = max(widths[index], cell.count) }
        }
        for row in rows {
            var line = ""
            for (index, cell) in row.enumerated() {
                let pad = String(repeating: " ", count: widths[index] - cell.count)
                line += index == 0 ? cell + pad : "  " + pad + cell
            }
            print("  " + line)
        }
    }
}

func milliseconds(_ value: Double) -> String { seconds(value, unit: "ms") }
func seconds(_ milliseconds: Double) -> String { seconds(milliseconds / 1000, unit: "s") }

private func seconds(_ value: Double, unit: String) -> String {
    let hundredths = Int((value * 100).rounded())
    let fraction = hundredths % 100
    return "\(hundredths / 100).\(fraction < 10 ? "0" : "")\(fraction) \(unit)"
}

/// With so many digits behind the point.
func decimal(_ value: Double, _ places: Int) -> String {
    guard value.isFinite, abs(value) < 1e12 else { return "-" }
    let scale = (0..<places).reduce(1.0) { scale, _ in scale * 10 }
    let whole = Int((abs(value) * scale).rounded())
    let digits = String(whole % Int(scale))
    let text =
        "\(whole / Int(scale))"
        + (places > 0 ? "." + String(repeating: "0", count: places - digits.count) + digits : "")
    return value < 0 && whole > 0 ? "-" + text : text
}

/// KiB, or MiB from 10 MiB on.
func memory(_ kibibytes: Int) -> String {
    guard kibibytes >= 10 << 10 else { return "\(kibibytes) KiB" }
    let tenths = (kibibytes * 10) >> 10
    return "\(tenths / 10).\(tenths % 10) MiB"
}

/// Of an odd number of values the middle one, else the mean of the two in the middle.
func median(_ values: [Double]) -> Double {
    let sorted = values.sorted()
    guard !sorted.isEmpty else { return 0 }
    return (sorted[(sorted.count - 1) / 2] + sorted[sorted.count / 2]) / 2
}
