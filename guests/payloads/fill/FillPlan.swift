import PayloadSupport

/// Which page is of which class. Classes follow one another by position; the position of a page is its number
/// (`layout=runs`) or a scattered one (`layout=scattered`), the same in every guest of equal size.
struct FillPlan {
    enum Class {
        case zero, uniform, common
        /// The page's number among the shifted ones.
        case shifted(UInt64)
        case unique, untouched
    }

    private(set) var pageCount: UInt64
    private(set) var zero: UInt64 = 0
    private(set) var uniform: UInt64 = 0
    private(set) var common: UInt64 = 0
    private(set) var shifted: UInt64 = 0
    private(set) var unique: UInt64 = 0
    /// A permutation of the written pages' positions.
    let amongWritten: Scatter
    private let layout: Scatter
    private var isScattered = false

    init(_ guest: Guest) {
        pageCount = guest.freePages.count
        var arguments = Arguments(guest)
        while let argument = arguments.next() {
            switch argument.key {
            case "zero": zero = argument.fraction()
            case "uniform": uniform = argument.fraction()
            case "common": common = argument.fraction()
            case "shifted": shifted = argument.fraction()
            case "unique": unique = argument.fraction()
            case "pages": pageCount = argument.decimal(in: 1...guest.freePages.count)
            case "layout": isScattered = argument.choice("runs", "scattered")
            default: argument.refuseKey()
            }
        }
        let sum = zero + uniform + common + shifted + unique
        if sum > 1_000_000 { guest.fail("the fractions add up to \(sum) millionths: more than 1") }
        let total = pageCount
        func count(_ millionths: UInt64) -> UInt64 { total * millionths / 1_000_000 }
        (zero, uniform, common) = (count(zero), count(uniform), count(common))
        (shifted, unique) = (count(shifted), count(unique))
        amongWritten = Scatter(count: zero + uniform + common + shifted + unique)
        layout = Scatter(count: total)
    }

    var writtenCount: UInt64 { zero + uniform + common + shifted + unique }

    /// Below `writtenCount` for exactly the pages that are written.
    func position(of number: UInt64) -> UInt64 {
        isScattered ? layout.position(of: number) : number
    }

    func `class`(of number: UInt64) -> Class {
        var position = position(of: number)
        if position < zero { return .zero }
        position -= zero
        if position < uniform { return .uniform }
        position -= uniform
        if position < common { return .common }
        position -= common
        if position < shifted { return .shifted(position) }
        position -= shifted
        return position < unique ? .unique : .untouched
    }
}
