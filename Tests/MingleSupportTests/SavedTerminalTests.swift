import LinuxHost
import Glibc
import TestSupport
import Testing

@testable import MingleSupport
@testable import VMMProtocol

@Suite struct SavedTerminalTests {
    /// A pseudo terminal of our own.
    final class PseudoTerminal {
        let leader: Int32
        let terminal: Int32
        let device: String

        init() throws {
            leader = open("/dev/ptmx", O_RDWR | O_NOCTTY)
            var unlocked: Int32 = 0
            var number: UInt32 = 0
            // TIOCSPTLCK and TIOCGPTN: ioctl numbers are function-like macros.
            let isUnlocked = ioctl(leader, 0x4004_5431, &unlocked) == 0
            let isNumbered = ioctl(leader, 0x8004_5430, &number) == 0
            try #require(leader >= 0 && isUnlocked && isNumbered)
            device = "/dev/pts/\(number)"
            terminal = open(device, O_RDWR | O_NOCTTY)
            try #require(terminal >= 0)
        }

        deinit {
            close(terminal)
            close(leader)
        }

        func makeRaw() throws {
            var settings = termios()
            try #require(tcgetattr(terminal, &settings) == 0)
            cfmakeraw(&settings)
            try #require(tcsetattr(terminal, TCSANOW, &settings) == 0)
        }
    }

    let temporary: TemporaryDirectory
    let state: StateDirectory
    let repair: TerminalRepair
    let terminal: PseudoTerminal

    init() throws {
        temporary = try TemporaryDirectory()
        state = try temporary.state()
        repair = TerminalRepair(directory: state)
        terminal = try PseudoTerminal()
    }

    /// Saves the present settings as a VMM does before raw mode.
    private func save(device: String? = nil) throws -> (path: String, settings: [UInt8]) {
        let settings = try #require(TerminalRepair.settings(of: terminal.terminal))
        let saved = SavedTerminal(device: device ?? terminal.device, owner: 12, settings: settings)
        let path = try temporary.write(
            "mingle/terminal/" + SavedTerminal.fileName(device: terminal.device), saved.text)
        return (path, settings)
    }

    private func repairIt() throws -> TerminalRepair.Outcome {
        try repair.repair(terminal.terminal, device: terminal.device)
    }

    @Test func fileNames() {
        #expect(SavedTerminal.fileName(device: "/dev/pts/3") == "dev-pts-3")
        #expect(SavedTerminal.fileName(device: "/dev/tty1") == "dev-tty1")
    }

    @Test func deviceIsFound() { #expect(TerminalRepair.device(of: terminal.terminal) == terminal.device) }

    @Test func textRoundTrips() throws {
        let settings = try #require(TerminalRepair.settings(of: terminal.terminal))
        let saved = SavedTerminal(device: "/dev/pts/3", owner: 77, settings: settings)
        #expect(try SavedTerminal(text: saved.text, path: "x") == saved)
        #expect(saved.text.hasPrefix("tty=/dev/pts/3\nowner_pid=77\ntermios="))
    }

    @Test func hexadecimalDigits() {
        #expect(SavedTerminal.hexadecimal([0, 15, 16, 255]) == "000f10ff")
        #expect(SavedTerminal.bytes(hexadecimal: "000F10ff") == [0, 15, 16, 255])
        for text in ["0", "0g", "zz", "00 0", "é"] { #expect(SavedTerminal.bytes(hexadecimal: text) == nil) }
    }

    @Test func aKilledGuestsTerminalIsRepairedOnce() throws {
        let saved = try save()
        try terminal.makeRaw()
        #expect(TerminalRepair.settings(of: terminal.terminal) != saved.settings)
        #expect(try repairIt() == .repaired)
        #expect(TerminalRepair.settings(of: terminal.terminal) == saved.settings)
        #expect(SystemCall.text(of: saved.path) == "")
        #expect(try repairIt() == .nothingSaved)
    }

    @Test func aLivingGuestKeepsItsTerminal() throws {
        let saved = try save()
        let lock = try HeldLock(saved.path)
        defer { lock.release() }
        try terminal.makeRaw()
        #expect(try repairIt() == .inUse)
        #expect(TerminalRepair.settings(of: terminal.terminal) != saved.settings)
        #expect(SystemCall.exists(saved.path))
    }

    @Test func aTerminalThatIsNotRawIsLeftAlone() throws {
        let saved = try save()
        #expect(try repairIt() == .notNeeded)
        #expect(SystemCall.text(of: saved.path) == "")
    }

    @Test func settingsOfAnotherTerminalAreNotUsed() throws {
        _ = try save(device: "/dev/pts/99999")
        try terminal.makeRaw()
        let before = TerminalRepair.settings(of: terminal.terminal)
        #expect(try repairIt() == .notNeeded)
        #expect(TerminalRepair.settings(of: terminal.terminal) == before)
    }

    @Test(arguments: ["?", "tty=/dev/pts/3\n", "tty=/dev/pts/3\nowner_pid=1\ntermios=00ff\n", "termios=zz"])
    func nonsenseIsRemovedAndReported(_ text: String) throws {
        let path = try temporary.write(
            "mingle/terminal/" + SavedTerminal.fileName(device: terminal.device), text)
        #expect(throws: SupportError.self) { try repairIt() }
        #expect(SystemCall.text(of: path) == "")
    }
}
