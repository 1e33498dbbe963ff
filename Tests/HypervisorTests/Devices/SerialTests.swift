import TestSupport
import Testing

@testable import Hypervisor

/// A UART with its line and a count of "output begins to wait".
private struct Bench {
    let line = FakeLine()
    let ready = FakeLine()
    let vcpu = FakeProcessor()
    let serial: Serial16550

    init() {
        let (line, ready) = (line, ready)
        serial = Serial16550(setInterrupt: { line.set($0) }, outputReady: { ready.set(true) })
    }
    func get(_ offset: UInt16) -> UInt8 { UInt8(serial.read(offset: offset, size: 1, by: vcpu)) }
    func set(_ offset: UInt16, _ value: UInt8) {
        serial.write(offset: offset, size: 1, value: UInt32(value), by: vcpu)
    }
}

private enum Register {
    static let data: UInt16 = 0, enable: UInt16 = 1, identification: UInt16 = 2, line: UInt16 = 3
    static let modem: UInt16 = 4, lineStatus: UInt16 = 5, modemStatus: UInt16 = 6, scratch: UInt16 = 7
}

/// National Semiconductor PC16550D, section 8.
@Suite struct SerialTests {
    @Test func afterReset() {
        let bench = Bench()
        #expect(bench.get(Register.enable) == 0)
        #expect(bench.get(Register.identification) == 0x01, "none pending, FIFOs off")
        #expect(bench.get(Register.line) == 0 && bench.get(Register.modem) == 0)
        #expect(bench.get(Register.lineStatus) == 0x60)
        #expect(bench.get(Register.modemStatus) == 0xB0, "DCD, DSR, CTS")
        #expect(bench.get(Register.data) == 0)
        #expect(bench.line.history.isEmpty)
    }

    @Test func registersKeepTheirBits() {
        let bench = Bench()
        bench.set(Register.enable, 0xF0)
        #expect(bench.get(Register.enable) == 0, "bits 4 to 7 are always 0")
        bench.set(Register.modem, 0xE3)
        #expect(bench.get(Register.modem) == 0x03, "bits 5 to 7 are always 0")
        bench.set(Register.scratch, 0xA5)
        #expect(bench.get(Register.scratch) == 0xA5)
        bench.set(Register.lineStatus, 0)
        bench.set(Register.modemStatus, 0)
        #expect(bench.get(Register.lineStatus) == 0x60 && bench.get(Register.modemStatus) == 0xB0)
    }

    @Test(arguments: [0, 5, 1023, 1024, 1025, 3000]) func whatWasSentLastIsKept(count: Int) {
        let bench = Bench()
        let sent = (0..<count).map { UInt8(truncatingIfNeeded: $0 * 7 + $0 / 256) }
        for (index, byte) in sent.enumerated() {
            bench.set(Register.data, byte)
            if index % 100 == 0 { _ = bench.serial.takeOutput(limit: 64) }
        }
        #expect(bench.serial.recentOutput == Array(sent.suffix(1024)))
        #expect(bench.serial.describe().hasPrefix("serial: sent \(count), "))
    }

    @Test func theDivisorHidesBehindTheLatch() {
        let bench = Bench()
        bench.set(Register.line, 0x83)
        bench.set(0, 0x34)
        bench.set(1, 0x12)
        #expect(bench.get(0) == 0x34 && bench.get(1) == 0x12)
        bench.set(Register.line, 0x03)
        #expect(bench.get(Register.enable) == 0)
        #expect(bench.serial.takeOutput(limit: 10).isEmpty, "the divisor is not data")
        #expect(bench.get(Register.line) == 0x03)
    }

    @Test func transmitterInterrupt() {
        let bench = Bench()
        bench.set(Register.enable, 2)
        #expect(bench.line.level, "raised as the transmitter is empty when it is enabled")
        #expect(bench.get(Register.identification) == 0x02)
        #expect(!bench.line.level, "cleared by reading the identification")
        #expect(bench.get(Register.identification) == 0x01)
        bench.set(Register.data, 0x41)
        #expect(bench.line.level, "raised again when the byte has gone")
        bench.set(Register.enable, 2)
        bench.set(Register.enable, 0)
        #expect(!bench.line.level && bench.get(Register.identification) == 0x01)
        #expect(bench.serial.takeOutput(limit: 5) == [0x41])
        #expect(bench.line.history == [true, false, true, false])
    }

    @Test func receivedDataComesBeforeTheTransmitter() {
        let bench = Bench()
        bench.set(2, 1)
        bench.set(Register.enable, 3)
        #expect(bench.serial.receive([1, 2]) == 2)
        #expect(bench.get(Register.identification) == 0xC4)
        #expect(bench.get(Register.identification) == 0xC4, "stays until the data is read")
        #expect(bench.get(Register.lineStatus) == 0x61)
        #expect(bench.get(Register.data) == 1 && bench.line.level)
        #expect(bench.get(Register.data) == 2)
        #expect(bench.get(Register.lineStatus) == 0x60)
        #expect(bench.get(Register.identification) == 0xC2)
        #expect(bench.get(Register.identification) == 0xC1 && !bench.line.level)
    }

    @Test func fifoControl() {
        let bench = Bench()
        bench.serial.receive([1])
        bench.set(2, 0x02)
        #expect(bench.get(Register.lineStatus) == 0x61, "without bit 0 the others do nothing")
        bench.set(2, 0x01)
        #expect(bench.get(Register.lineStatus) == 0x60, "turning the FIFOs on empties them")
        #expect(bench.get(Register.identification) == 0xC1)
        bench.serial.receive([2])
        bench.set(2, 0xC1)
        #expect(bench.get(Register.lineStatus) == 0x61)
        bench.set(2, 0x03)
        #expect(bench.get(Register.lineStatus) == 0x60 && bench.get(Register.data) == 0)
        bench.set(Register.data, 7)
        bench.set(2, 0x05)
        #expect(bench.serial.takeOutput(limit: 9) == [7], "what was sent is sent")
        bench.serial.receive([3])
        bench.set(2, 0)
        #expect(bench.get(Register.lineStatus) == 0x60 && bench.get(Register.identification) == 0x01)
    }

    @Test func loopback() {
        let bench = Bench()
        bench.serial.receive([9])
        bench.set(Register.modem, 0x10)
        #expect(bench.get(Register.modemStatus) == 0)
        for (output, input) in [(UInt8(1), UInt8(0x20)), (2, 0x10), (4, 0x40), (8, 0x80), (15, 0xF0)] {
            bench.set(Register.modem, 0x10 | output)
            #expect(bench.get(Register.modemStatus) == input)
        }
        #expect(bench.get(Register.data) == 9, "what the receiver had")
        bench.serial.receive([10])
        #expect(bench.get(Register.lineStatus) == 0x60, "the line is cut off")
        bench.set(Register.data, 0x55)
        #expect(bench.get(Register.lineStatus) == 0x61)
        #expect(bench.get(Register.data) == 0x55)
        #expect(bench.serial.takeOutput(limit: 9).isEmpty, "nothing leaves")
        bench.set(Register.enable, 4)
        for byte in UInt8(0)..<17 { bench.set(Register.data, byte) }
        #expect(
            bench.line.level && bench.get(Register.identification) == 0x06, "overrun: line status interrupt")
        #expect(bench.get(Register.lineStatus) == 0x63)
        #expect(bench.get(Register.lineStatus) == 0x61 && !bench.line.level, "reading clears it")
        for byte in UInt8(0)..<16 { #expect(bench.get(Register.data) == byte) }
        bench.set(Register.modem, 2)
        #expect(bench.get(Register.data) == 10, "what the host sent meanwhile")
        #expect(bench.get(Register.lineStatus) == 0x60)
    }

    @Test func theGuestHoldsTheHostByRTS() {
        let bench = Bench()
        bench.set(Register.enable, 1)
        bench.set(Register.modem, 1)
        let bytes = (0..<40).map { UInt8($0) }
        #expect(bench.serial.receive(bytes) == 40)
        #expect(bench.get(Register.lineStatus) == 0x60 && !bench.line.level, "held")
        bench.set(Register.modem, 3)
        #expect(bench.line.level && bench.get(Register.data) == 0)
        bench.set(Register.modem, 1)
        // The FIFO's 16 bytes had come, and one more when the first was read.
        for byte in UInt8(1)..<17 { #expect(bench.get(Register.data) == byte) }
        #expect(bench.get(Register.lineStatus) == 0x60)
        bench.set(Register.modem, 2)
        bench.set(2, 3)
        #expect(bench.get(Register.data) == 33, "a reset empties the FIFO, and the line fills it again")
        for byte in UInt8(34)..<40 { #expect(bench.get(Register.data) == byte) }
        #expect(!bench.line.level)
    }

    @Test func aFullRingSlowsTheGuest() {
        let bench = Bench()
        bench.set(Register.enable, 2)
        for index in 0..<Serial16550.capacity {
            if bench.get(Register.lineStatus) != 0x60 { Issue.record("busy after \(index) bytes") }
            bench.set(Register.data, UInt8(truncatingIfNeeded: index))
        }
        #expect(bench.get(Register.lineStatus) == 0, "busy")
        #expect(!bench.line.level)
        bench.set(Register.enable, 0)
        bench.set(Register.enable, 2)
        #expect(!bench.line.level, "not raised while the transmitter is busy")
        bench.set(Register.data, 0xEE)
        #expect(bench.get(Register.lineStatus) == 0)
        #expect(bench.serial.takeOutput(limit: 0).isEmpty)
        #expect(!bench.line.level)
        #expect(bench.serial.takeOutput(limit: 3) == [0, 1, 2])
        #expect(bench.line.level && bench.get(Register.identification) == 0x02)
        #expect(bench.get(Register.lineStatus) == 0x60)
        let rest = bench.serial.takeOutput(limit: Int.max)
        #expect(rest == (3..<Serial16550.capacity).map { UInt8(truncatingIfNeeded: $0) })
        #expect(bench.ready.history.count == 1, "the host is told when bytes begin to wait")
        bench.set(Register.data, 1)
        #expect(bench.ready.history.count == 2)
    }

    @Test func inputHasAnEnd() {
        let bench = Bench()
        bench.set(Register.modem, 0)
        #expect(bench.serial.inputSpace == Serial16550.capacity)
        #expect(
            bench.serial.receive([UInt8](repeating: 5, count: Serial16550.capacity - 1)) == Serial16550
                .capacity - 1)
        #expect(bench.serial.inputSpace == 1)
        #expect(bench.serial.receive([6, 7, 8]) == 1)
        #expect(bench.serial.inputSpace == 0)
        #expect(bench.serial.receive([9]) == 0)
        bench.set(Register.modem, 2)
        #expect(bench.serial.inputSpace == 16, "the FIFO took its part")
        for _ in 0..<Serial16550.capacity - 1 where bench.get(Register.data) != 5 {
            Issue.record("wrong byte")
        }
        #expect(bench.get(Register.data) == 6)
        #expect(bench.serial.inputSpace == Serial16550.capacity)
    }

    @Test func otherWidthsReadAllOnes() {
        let bench = Bench()
        #expect(bench.serial.read(offset: 0, size: 2, by: bench.vcpu) == UInt32.max)
        #expect(bench.serial.read(offset: 5, size: 4, by: bench.vcpu) == UInt32.max)
        bench.serial.write(offset: 0, size: 4, value: 0x41, by: bench.vcpu)
        #expect(bench.serial.takeOutput(limit: 1).isEmpty)
    }
}

/// The same device told as plainly as possible: every condition worked out anew from all state.
private struct Model {
    var enable: UInt8 = 0, line: UInt8 = 0, modem: UInt8 = 0, fifo: UInt8 = 0, scratch: UInt8 = 0
    var divisor: [UInt8] = [12, 0]
    var (output, input, received): ([UInt8], [UInt8], [UInt8]) = ([], [], [])
    var saidModem = false
    var overrun = false
    var emptied = false

    var latched: Bool { line >= 0x80 }
    var loops: Bool { modem & 16 == 16 }
    var busy: Bool { output.count == Serial16550.capacity }
    var cause: UInt8? {
        if enable & 4 == 4 && overrun { return 6 }
        if enable & 1 == 1 && !received.isEmpty { return 4 }
        if enable & 2 == 2 && emptied { return 2 }
        return nil
    }

    /// The line gives bytes to the receiver one by one, as long as it may.
    mutating func flow() {
        while !loops && (!saidModem || modem & 2 == 2) && received.count < 16 && !input.isEmpty {
            received.append(input.removeFirst())
        }
    }

    mutating func read(_ offset: UInt16) -> UInt8 {
        if latched && offset < 2 { return divisor[Int(offset)] }
        switch offset {
        case 0:
            if received.isEmpty { return 0 }
            defer { flow() }
            return received.removeFirst()
        case 1: return enable
        case 2:
            let found = cause ?? 1
            if found == 2 { emptied = false }
            return found + (fifo % 2 == 1 ? 0xC0 : 0)
        case 3: return line
        case 4: return modem
        case 5:
            defer { overrun = false }
            return (received.isEmpty ? 0 : 1) + (overrun ? 2 : 0) + (busy ? 0 : 0x60)
        case 6:
            if !loops { return 0xB0 }
            let pairs: [(UInt8, UInt8)] = [(1, 0x20), (2, 0x10), (4, 0x40), (8, 0x80)]
            return pairs.reduce(0) { $0 + (modem & $1.0 == $1.0 ? $1.1 : 0) }
        default: return scratch
        }
    }

    mutating func write(_ offset: UInt16, _ value: UInt8) {
        if latched && offset < 2 {
            divisor[Int(offset)] = value
            return
        }
        switch offset {
        case 0:
            if loops {
                if received.count == 16 { overrun = true } else { received.append(value) }
            } else if !busy {
                output.append(value)
            }
            emptied = !busy
        case 1:
            if enable & 2 == 0 && value & 2 == 2 { emptied = !busy }
            enable = value % 16
        case 2:
            if value % 2 != fifo % 2 || (value % 2 == 1 && value & 2 == 2) { received = [] }
            fifo = value % 2 == 1 ? value : 0
            flow()
        case 3: line = value
        case 4:
            modem = value % 32
            saidModem = true
            flow()
        case 7: scratch = value
        default: break
        }
    }
}

@Suite struct SerialModelTests {
    @Test func randomOperationsAgreeWithAPlainModel() {
        var random = SeededGenerator(for: "serial model")
        for _ in 0..<20 {
            let bench = Bench()
            var model = Model()
            for step in 0..<3000 {
                let offset = UInt16.random(in: 0..<8, using: &random)
                switch Int.random(in: 0..<20, using: &random) {
                case 0..<9:
                    #expect(bench.get(offset) == model.read(offset), "step \(step), register \(offset)")
                case 9..<17:
                    // Rarely the latch, or little else would be reached.
                    let value = offset == 3 && !random.oneIn(4) ? random.byte() & 0x7F : random.byte()
                    bench.set(offset, value)
                    model.write(offset, value)
                case 17:
                    let bytes = (0..<Int.random(in: 0..<30, using: &random)).map { _ in random.byte() }
                    #expect(bench.serial.receive(bytes) == bytes.count)
                    model.input += bytes
                    model.flow()
                case 18:
                    let limit = Int.random(in: 0..<40, using: &random)
                    let taken = min(limit, model.output.count)
                    #expect(bench.serial.takeOutput(limit: limit) == Array(model.output.prefix(taken)))
                    if taken > 0 && model.busy { model.emptied = true }
                    model.output.removeFirst(taken)
                default:
                    #expect(bench.serial.inputSpace == Serial16550.capacity - model.input.count)
                    if random.oneIn(40) && !model.latched && !model.loops {
                        while !model.busy {
                            bench.set(0, 1)
                            model.write(0, 1)
                        }
                    }
                }
                #expect(bench.line.level == (model.cause != nil), "step \(step)")
            }
        }
    }

    @Test func theQueueIsAQueue() {
        var random = SeededGenerator(for: "byte queue")
        var (queue, model) = (ByteQueue(), [UInt8]())
        for _ in 0..<2000 {
            if random.oneIn(2) {
                let bytes = (0..<Int.random(in: 0..<3000, using: &random)).map { _ in random.byte() }
                queue.append(bytes)
                model += bytes
            } else {
                let limit = Int.random(in: -1..<5000, using: &random)
                let taken = queue.take(limit)
                #expect(taken == Array(model.prefix(max(0, limit))))
                model.removeFirst(taken.count)
            }
            #expect(queue.count == model.count && queue.isEmpty == model.isEmpty)
        }
        queue.removeAll()
        #expect(queue.isEmpty && queue.take(1) == [])
    }
}
