internal import GuestMemory
internal import LinuxHost

/// How often each page was written while it was watched, and how long it is left alone for that. 2 bytes a page, in memory that
/// costs nothing where nothing is known.
final class Volatility {
    static let bytesPerPage = 2
    private static let mostExponent = 8
    private let exponents: LazyArray<UInt8>
    private let waits: LazyArray<UInt8>

    /// - Throws: when there is no address space for the tables.
    init(count: Int) throws(LinuxError) {
        exponents = try LazyArray(count: count)
        waits = try LazyArray(count: count)
    }

    /// Units of time to wait before the page is watched again.
    func wait(_ page: Int) -> UInt8 { waits[page] }
    func tick(_ page: Int, by units: Int = 1) { waits[page] -= UInt8(min(Int(waits[page]), units)) }

    /// The page was written while it was watched: look half as often.
    /// - Parameter limit: exponent of the longest wait.
    func backOff(_ page: Int, limit: UInt8) {
        let exponent = min(Int(exponents[page]) + 1, Int(limit), Self.mostExponent)
        exponents[page] = UInt8(exponent)
        waits[page] = UInt8((1 << exponent) - 1)
    }

    /// The page stayed clean: trust it a little more.
    func settle(_ page: Int) {
        if exponents[page] > 0 { exponents[page] -= 1 }
    }
}
