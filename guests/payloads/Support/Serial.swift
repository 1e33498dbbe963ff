import Machine

/// Prints one line. Lines of several vCPUs never mix.
public func say(_ message: Message) {
    Lock.serial.whileHeld {
        for offset in 0..<message.count { Serial.send(message.bytes[offset]) }
        Serial.send(0x0A)
    }
}

/// The serial line, a 16550A, polled.
enum Serial {
    static func send(_ byte: UInt8) {
        while machine_in8(Port.serialLineStatus) & 0x20 == 0 { machine_pause() }
        machine_out8(Port.serialData, byte)
    }

    static func receive() -> UInt8? {
        machine_in8(Port.serialLineStatus) & 0x01 == 0 ? nil : machine_in8(Port.serialData)
    }
}

/// Collects the lines that arrive on the serial line. For the leading vCPU alone: there is one buffer.
public struct LineReader {
    private static let capacity: UInt64 = 256
    private var count: UInt64 = 0
    private var isComplete = false

    public init() {}

    /// Takes what has arrived; the line, without its end, once that has come. The text is valid until the
    /// next call. Bytes beyond the 256th of a line are dropped.
    public mutating func poll() -> Text? {
        if isComplete {
            isComplete = false
            count = 0
        }
        while let byte = Serial.receive() {
            if byte == 0x0A || byte == 0x0D {
                if count == 0 { continue }
                isComplete = true
                return Text(address: machine_line_buffer_address(), count: count)
            }
            if count < LineReader.capacity {
                machine_store8(machine_line_buffer_address() + count, byte)
                count += 1
            }
        }
        return nil
    }

    /// Waits for a line, looking every 50 ms.
    public mutating func wait() -> Text {
        while true {
            if let line = poll() { return line }
            sleep(microseconds: 50_000)
        }
    }
}
