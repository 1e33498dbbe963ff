import Machine
import PayloadSupport

/// Says hello from every vCPU, then does the one thing that a test of the VMM wants to see (`do=`).
@c(payload_main)
public func main(information: UInt64, vcpu: UInt64) {
    let guest = Guest("hello", information: information, vcpu: vcpu)
    let hello = Hello(guest)
    say("hello: vcpu \(vcpu) of \(guest.vcpuCount), guest \(guest.index)")
    Barrier.wait(guest, meeting: 1)
    if guest.leads { ringDoorbell(1) }
    if hello.action == .spin { hello.spin() }
    if guest.leads { hello.act() }
}

struct Hello {
    enum Action {
        case exit, tripleFault, halt, spin, sleep, mmio, port, emulationFailure, echo, clock, write, entropy
    }

    let guest: Guest
    private(set) var action = Action.exit
    private var code: UInt64 = 0
    private(set) var address: UInt64 = 0xC000_0000
    private var port: UInt64 = 0x80
    private(set) var pages: UInt64 = 1
    private var stride: UInt64 = 1

    init(_ guest: Guest) {
        self.guest = guest
        var arguments = Arguments(guest)
        while let argument = arguments.next() {
            switch argument.key {
            case "do": action = Hello.action(argument)
            case "code": code = argument.decimal(in: 0...255)
            case "addr":
                address = argument.hexadecimal(in: 0...UInt64.max)
                guard guest.mayTouch(address, count: 8) else {
                    argument.refuse("8 free bytes of RAM or of the device space")
                }
            case "port": port = argument.hexadecimal(in: 0...0xFFFF)
            case "pages": pages = argument.decimal(in: 1...guest.freePages.count)
            case "stride": stride = argument.decimal(in: 1...guest.freePages.count)
            default: argument.refuseKey()
            }
        }
        if pages > 1 && (pages - 1) * stride >= guest.freePages.count {
            guest.fail("pages=\(pages) stride=\(stride): there are only \(guest.freePages.count) free pages")
        }
    }

    private static func action(_ argument: Argument) -> Action {
        switch argument.value {
        case "exit": return .exit
        case "triplefault": return .tripleFault
        case "hlt": return .halt
        case "spin": return .spin
        case "sleep": return .sleep
        case "mmio": return .mmio
        case "port": return .port
        case "emulfail": return .emulationFailure
        case "echo": return .echo
        case "clock": return .clock
        case "write": return .write
        case "entropy": return .entropy
        default:
            argument.refuse(
                "exit, triplefault, hlt, spin, sleep, mmio, port, emulfail, echo, clock, write or entropy")
        }
    }

    func act() -> Never {
        switch action {
        case .exit, .spin: break
        case .tripleFault: machine_device_store8(0, 1)
        case .halt: machine_halt()
        case .sleep: guest.sleepForEver()
        case .mmio: accessMemory()
        case .port: accessPort()
        case .emulationFailure:
            say("hello: x87 load at \(hex: address)")
            machine_x87_load(address)
            say("hello: the x87 load succeeded")
        case .echo: echo()
        case .clock: showClock()
        case .write: writePages()
        case .entropy: takeEntropy()
        }
        guest.exit(code)
    }
}

// MARK: Actions

extension Hello {
    /// Counts in a word of its own cache line: `freeStart + 64 * vCPU`, so that a test sees who runs.
    func spin() -> Never {
        if guest.leads { say("hello: spinning, counters at \(hex: guest.freeLow.lowerBound)") }
        let counter = guest.freeLow.lowerBound + 64 * guest.vcpu
        var count: UInt64 = 0
        while true {
            count &+= 1
            machine_store64(counter, count)
        }
    }

    private func accessMemory() {
        let byte = machine_device_load8(address)
        let word = machine_device_load16(address)
        let long = machine_device_load32(address)
        let quad = machine_device_load64(address)
        say(
            "hello: mmio addr=\(hex: address) read8=\(hex: byte) read16=\(hex: word) read32=\(hex: long) read64=\(hex: quad)"
        )
        machine_device_store8(address, 0x11)
        machine_device_store16(address, 0x2211)
        machine_device_store32(address, 0x4433_2211)
        machine_device_store64(address, 0x8877_6655_4433_2211)
    }

    private func accessPort() {
        let number = UInt16(truncatingIfNeeded: port)
        let byte = machine_in8(number)
        let word = machine_in16(number)
        let long = machine_in32(number)
        say("hello: port port=\(hex: number) read8=\(hex: byte) read16=\(hex: word) read32=\(hex: long)")
        machine_out8(number, 0x11)
        machine_out16(number, 0x2211)
        machine_out32(number, 0x4433_2211)
    }

    private func echo() {
        var reader = LineReader()
        while true {
            let line = reader.wait()
            if case "exit" = line { return }
            say("hello: echo \(line)")
        }
    }

    private func showClock() {
        let before = clockNanoseconds()
        sleep(microseconds: 10_000)
        let after = clockNanoseconds()
        say("hello: clock before_ns=\(before)")
        say("hello: clock after_ns=\(after)")
    }

    private func writePages() -> Never {
        let free = guest.freePages
        for number in 0..<pages { machine_store8(free.address(of: number * stride), 1) }
        let last = free.address(of: (pages - 1) * stride)
        say(
            "hello: wrote pages=\(pages) stride=\(stride) first=\(hex: free.address(of: 0)) last=\(hex: last)"
        )
        ringDoorbell(2)
        guest.sleepForEver()
    }
}
