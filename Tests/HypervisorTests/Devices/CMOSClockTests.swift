import Foundation
import TestSupport
import Testing

@testable import Hypervisor

@Suite struct CMOSClockTests {
    private static let calendar: Calendar = {
        var calendar = Calendar(identifier: .gregorian)
        calendar.timeZone = TimeZone(secondsFromGMT: 0) ?? calendar.timeZone
        return calendar
    }()

    /// What a guest reads, decoded from BCD.
    private func registers(_ seconds: Int) -> [Int] {
        let memory = [UInt8](repeating: 0, count: 128)
        let dates: [UInt8] = [0x32, 0x09, 0x08, 0x07, 0x04, 0x02, 0x00]
        return dates.map { index -> Int in
            let byte = Int(CMOSClock.value(index, memory, secondsSince1970: seconds))
            return byte / 16 * 10 + byte % 16
        } + [Int(CMOSClock.value(0x06, memory, secondsSince1970: seconds))]
    }

    private func expected(_ seconds: Int) -> [Int] {
        let parts = Self.calendar.dateComponents(
            [.year, .month, .day, .hour, .minute, .second, .weekday],
            from: Date(timeIntervalSince1970: Double(seconds)))
        let year = parts.year ?? -1
        return [
            year / 100, year % 100, parts.month ?? 0, parts.day ?? 0, parts.hour ?? -1, parts.minute ?? -1,
            parts.second ?? -1, parts.weekday ?? 0,
        ]
    }

    @Test func datesAgreeWithTheCalendar() {
        // Every boundary around leap days, centuries and the ends of years.
        let days: [Int] = [
            0, 59, 365, 789, 790, 10_956, 10_957, 11_015, 11_016, 11_017, 19_782, 19_783, 20_513, 24_855,
            47_540, 47_541,
            47_542,
        ]
        for day in days {
            for second in [-1, 0, 1, 59, 60, 3599, 3600, 43_200, 86_399, 86_400] {
                let seconds = day * 86_400 + second
                if seconds >= 0 { #expect(registers(seconds) == expected(seconds), "\(seconds) s") }
            }
        }
        var random = SeededGenerator(for: "dates")
        for _ in 0..<3000 {
            // Up to the year 9999, and back to 1600.
            let seconds = Int.random(in: -11_676_096_000..<253_402_300_800, using: &random)
            #expect(registers(seconds) == expected(seconds), "\(seconds) s")
        }
    }

    @Test func knownDates() {
        #expect(registers(0) == [19, 70, 1, 1, 0, 0, 0, 5], "a Thursday")
        #expect(registers(951_782_400) == [20, 0, 2, 29, 0, 0, 0, 3], "2000 is a leap year")
        #expect(registers(4_107_542_400) == [21, 0, 3, 1, 0, 0, 0, 2], "2100 is none")
        #expect(registers(1_709_251_199) == [20, 24, 2, 29, 23, 59, 59, 5])
    }

    @Test func theGuestSeesARunningClock() {
        let (clock, vcpu) = (CMOSClock(), FakeProcessor())
        func get(_ index: UInt32) -> UInt32 {
            clock.write(offset: 0, size: 1, value: index, by: vcpu)
            return clock.read(offset: 1, size: 1, by: vcpu)
        }
        #expect(get(0x0A) == 0x26 && get(0x0B) == 0x02 && get(0x0C) == 0 && get(0x0D) == 0x80)
        #expect(get(0x8D) == 0x80, "bit 7 masks the NMI and is no part of the index")
        clock.write(offset: 0, size: 1, value: 0x40, by: vcpu)
        clock.write(offset: 1, size: 1, value: 0x5A, by: vcpu)
        #expect(get(0x40) == 0x5A && get(0x41) == 0, "other registers are memory")
        clock.write(offset: 0, size: 1, value: 0x09, by: vcpu)
        clock.write(offset: 1, size: 1, value: 0x77, by: vcpu)
        #expect(get(0x32) == 0x20 && get(0x09) != 0x77, "the date cannot be set")
        #expect(clock.read(offset: 0, size: 1, by: vcpu) & 0xFF == 0xFF)
        #expect(clock.read(offset: 1, size: 2, by: vcpu) == UInt32.max)
    }
}
