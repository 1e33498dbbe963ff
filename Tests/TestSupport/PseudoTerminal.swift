import Foundation

/// A terminal whose keyboard and screen are the test's.
public final class PseudoTerminal {
    /// Mode bits and control characters.
    public struct Settings: Equatable, Sendable {
        private let input, output, control, local: UInt32
        private let characters: [UInt8]
        init(_ value: termios) {
            (input, output, control, local) = (value.c_iflag, value.c_oflag, value.c_cflag, value.c_lflag)
            characters = withUnsafeBytes(of: value.c_cc) { Array($0) }
        }
        public var isRaw: Bool { local & UInt32(ICANON | ECHO | ISIG) == 0 }
    }

    /// What a program opens.
    public let path: String
    private let leader: Int32
    private let follower: Int32
    private var shown = ""

    public init() throws {
        leader = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC)
        var locked: Int32 = 0
        var number: UInt32 = 0
        // Swift's Glibc has neither posix_openpt nor what follows it: TIOCSPTLCK and TIOCGPTN (asm-generic/ioctls.h)
        guard leader >= 0, ioctl(leader, 0x4004_5431, &locked) == 0, ioctl(leader, 0x8004_5430, &number) == 0
        else {
            throw Failure("no pseudo terminal: \(String(cString: strerror(errno)))")
        }
        path = "/dev/pts/\(number)"
        // Held open, or its settings would go with the program.
        follower = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC)
        _ = fcntl(leader, F_SETFL, O_NONBLOCK)
    }

    deinit {
        close(follower)
        close(leader)
    }

    public var settings: Settings {
        var value = termios()
        tcgetattr(follower, &value)
        return Settings(value)
    }

    /// Shows nothing more, as when its stop key was pressed.
    public func holdOutput() { _ = tcflow(follower, TCOOFF) }

    public func type(_ keys: [UInt8]) { _ = keys.withUnsafeBytes { write(leader, $0.baseAddress, $0.count) } }
    public func type(_ text: String) { type(Array(text.utf8)) }

    /// Waits until the screen shows this, behind what was waited for before.
    /// - Parameter seconds: of ``Pace``.
    public func wait(for text: String, within seconds: Double = 300) throws {
        var buffer = [UInt8](repeating: 0, count: 4096)
        let found = eventually(within: seconds) {
            while case let count = read(leader, &buffer, buffer.count), count > 0 {
                shown += String(decoding: buffer[..<count], as: UTF8.self)
            }
            return shown.contains(text)
        }
        guard found, let range = shown.range(of: text) else {
            throw Failure("no '\(text)' on the terminal, but: \(shown)\n\(HostState.description)")
        }
        shown = String(shown[range.upperBound...])
    }
}
