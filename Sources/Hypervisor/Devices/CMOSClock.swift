internal import GuestMemory
internal import LinuxHost
internal import Glibc

/// The MC146818 real-time clock behind ports 0x70 and 0x71: the date, in UTC, and no update in progress, ever, so that
/// Linux need not wait for one. Alarms and periodic interrupts are not there.
final class CMOSClock: PortDevice {
    private struct State {
        var index: UInt8 = 0
        var memory = [UInt8](repeating: 0, count: 128)
    }
    private let state = Monitor(State())

    func read(offset: UInt16, size: Int, by vcpu: any ProcessorContext) -> UInt32 {
        guard size == 1, offset == 1 else { return UInt32.max }
        let now = Int(time(nil))
        return state.withLock { UInt32(Self.value($0.index, $0.memory, secondsSince1970: now)) }
    }

    func write(offset: UInt16, size: Int, value: UInt32, by vcpu: any ProcessorContext) {
        guard size == 1 else { return }
        state.withLock { state in
            let byte = UInt8(truncatingIfNeeded: value)
            if offset == 0 { state.index = byte & 0x7f } else { state.memory[Int(state.index)] = byte }
        }
    }

    /// One register: the date in BCD with 24 hours, status A and B as a running clock shows them.
    static func value(_ index: UInt8, _ memory: [UInt8], secondsSince1970 now: Int) -> UInt8 {
        let date = CivilDate(secondsSince1970: now)
        switch index {
        case 0x00: return bcd(date.second)
        case 0x02: return bcd(date.minute)
        case 0x04: return bcd(date.hour)
        case 0x06: return UInt8(date.weekday + 1)
        case 0x07: return bcd(date.day)
        case 0x08: return bcd(date.month)
        case 0x09: return bcd(date.year % 100)
        case 0x32: return bcd(date.year / 100)
        case 0x0A: return 0x26  // time base running, UIP clear
        case 0x0B: return 0x02  // 24 hours, BCD
        case 0x0C: return 0x00
        case 0x0D: return 0x80  // battery good
        default: return memory[Int(index & 0x7f)]
        }
    }

    private static func bcd(_ value: Int) -> UInt8 { UInt8((value / 10) << 4 | value % 10) }
}

/// A date of the Gregorian calendar in UTC.
struct CivilDate: Equatable {
    let year: Int, month: Int, day: Int, hour: Int, minute: Int, second: Int
    /// 0 is Sunday.
    let weekday: Int

    /// Counts eras of 400 years (146 097 days) from 1 March of year 0, so that the leap day ends a year.
    init(secondsSince1970 seconds: Int) {
        let days = Int((Double(seconds) / 86400).rounded(.down))
        let rest = seconds - days * 86400
        let shifted = days + 719_468
        let era = (shifted >= 0 ? shifted : shifted - 146_096) / 146_097
        let dayOfEra = shifted - era * 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let shiftedMonth = (5 * dayOfYear + 2) / 153
        day = dayOfYear - (153 * shiftedMonth + 2) / 5 + 1
        month = shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9
        year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
        (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60)
        weekday = ((days + 4) % 7 + 7) % 7
    }
}
