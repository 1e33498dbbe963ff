import Foundation
import GuestMemory

/// A terminal whose keyboard and screen are ours.
final class PseudoTerminal {
    /// The bits of termios that raw mode changes.
    struct Settings: Equatable {
        let input, output, control, local: UInt32
        var isRaw: Bool { local & UInt32(ICANON | ECHO | ISIG) == 0 }
    }

    /// The device that a child opens.
    let path: String
    private let main: Int32
    private var seen: [UInt8] = []

    init() throws {
        // Swift's Glibc has neither posix_openpt nor what follows it; these are TIOCSPTLCK and TIOCGPTN.
        main = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC)
        var (lock, number): (Int32, Int32) = (0, 0)
        guard main >= 0, ioctl(main, 0x4004_5431, &lock) == 0, ioctl(main, 0x8004_5430, &number) == 0 else {
            throw LinuxError.current("open", "/dev/ptmx")
        }
        path = "/dev/pts/\(number)"
        _ = fcntl(main, F_SETFL, O_NONBLOCK)
    }

    deinit { close(main) }

    var settings: Settings {
        var settings = termios()
        tcgetattr(main, &settings)
        return Settings(
            input: settings.c_iflag, output: settings.c_oflag, control: settings.c_cflag,
            local: settings.c_lflag)
    }

    func write(_ keys: [UInt8]) { _ = keys.withUnsafeBytes { Glibc.write(main, $0.baseAddress, $0.count) } }

    /// Waits for a text on the screen.
    func read(until text: String) -> Bool {
        eventually {
            var buffer = [UInt8](repeating: 0, count: 4096)
            let count = Glibc.read(main, &buffer, buffer.count)
            if count > 0 { seen += buffer[..<count] }
            return String(decoding: seen, as: UTF8.self).contains(text)
        }
    }
}

/// Numbers that look random and follow from the seed.
struct Random: RandomNumberGenerator {
    private var state: UInt64
    init(seed: UInt64) { state = seed }
    mutating func next() -> UInt64 {
        // SplitMix64 (Steele, Lea, Flood 2014)
        state &+= 0x9E37_79B9_7F4A_7C15
        var value = (state ^ state >> 30) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ value >> 27) &* 0x94D0_49BB_1331_11EB
        return value ^ value >> 31
    }
}
