/// A payload of a few instructions, for what the built ones do not do: an ELF file made here.
enum TinyPayload {
    static let codeStart: UInt64 = 0x200000
    /// Where `data` is.
    static let dataStart: UInt64 = 0x201000

    static func file(_ code: [UInt8], data: [UInt8] = []) -> [UInt8] {
        var image: [UInt8] = []
        func put<T: FixedWidthInteger>(_ value: T) {
            for index in 0..<T.bitWidth / 8 { image.append(UInt8(truncatingIfNeeded: value >> T(index * 8))) }
        }
        // ELF header: 64-bit, little-endian, ET_EXEC, EM_X86_64, two program headers.
        image += [0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        put(UInt16(2)); put(UInt16(62)); put(UInt32(1)); put(codeStart)
        put(UInt64(64)); put(UInt64(0)); put(UInt32(0))
        put(UInt16(64)); put(UInt16(56)); put(UInt16(2)); put(UInt16(0)); put(UInt16(0)); put(UInt16(0))
        // PT_NOTE, 28 bytes.
        put(UInt32(4)); put(UInt32(4))
        for value in [176, 0, 0, 28, 28, 4] as [UInt64] { put(value) }
        // PT_LOAD: code, and data a page further on.
        let loaded = code + [UInt8](repeating: 0xF4, count: 4096 - code.count) + data
        put(UInt32(1)); put(UInt32(7))
        for value in [4096, codeStart, codeStart, UInt64(loaded.count), UInt64(loaded.count), 4096]
            as [UInt64]
        {
            put(value)
        }
        put(UInt32(7)); put(UInt32(8)); put(UInt32(1))
        image += Array("Mingle".utf8) + [0, 0]
        put(UInt32(1)); put(UInt32(0))
        image += [UInt8](repeating: 0, count: 4096 - image.count)
        return image + loaded
    }

    /// `mov eax, value; mov dx, port; out dx, al/ax/eax`
    static func out(_ port: UInt16, _ value: UInt32, size: Int) -> [UInt8] {
        let out: [UInt8] = size == 1 ? [0xEE] : size == 2 ? [0x66, 0xEF] : [0xEF]
        return [0xB8] + (0..<4).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) }
            + [0x66, 0xBA, UInt8(truncatingIfNeeded: port), UInt8(truncatingIfNeeded: port >> 8)] + out
    }

    static func exit(_ code: UInt8) -> [UInt8] { out(0xD00, UInt32(code), size: 1) }

    /// `mov rax, 0x1122334455667788; mov byte [0], 1`
    static let fault: [UInt8] =
        [0x48, 0xB8, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0xC6, 0x04, 0x25, 0, 0, 0, 0, 1]

    /// `1: out dx, eax; jmp 1b` on the doorbell.
    static let ringEndlessly: [UInt8] = out(0xD04, 7, size: 4) + [0xEB, 0xFD]

    /// Bytes that ``flood`` sends from ``dataStart``.
    static let floodCount = 76_000
    /// Sends 60 000 bytes with `rep outsb` (they fit the serial line's ring), the others when the line has room.
    static let flood: [UInt8] =
        [
            0xBE, 0x00, 0x10, 0x20, 0x00,  // mov esi, 0x201000
            0xB9, 0x60, 0xEA, 0x00, 0x00,  // mov ecx, 60000
            0x66, 0xBA, 0xF8, 0x03,  // mov dx, 0x3f8
            0xF3, 0x6E,  // rep outsb
            0xB9, 0x80, 0x3E, 0x00, 0x00,  // mov ecx, 16000
            0x66, 0xBA, 0xFD, 0x03,  // 1: mov dx, 0x3fd
            0xEC, 0xA8, 0x20, 0x74, 0xFB,  // 2: in al, dx; test al, 0x20; jz 2b
            0x66, 0xBA, 0xF8, 0x03,  // mov dx, 0x3f8
            0x6E,  // outsb
            0xFF, 0xC9, 0x75, 0xEE,  // dec ecx; jnz 1b
        ] + exit(0)

    /// Bytes without zeros that ``sumInput`` takes.
    static let inputCount = 100_000
    /// Takes input (a zero is what an empty line gives), answers with the 8 bytes of `sum = sum * 31 + byte`.
    static let sumInput: [UInt8] =
        [
            0xBB, 0xA0, 0x86, 0x01, 0x00,  // mov ebx, 100000
            0x45, 0x31, 0xC0,  // xor r8d, r8d
            0xBF, 0x00, 0x00, 0x30, 0x00,  // 1: mov edi, 0x300000
            0xB9, 0x00, 0x04, 0x00, 0x00,  // mov ecx, 1024
            0x66, 0xBA, 0xF8, 0x03,  // mov dx, 0x3f8
            0xF3, 0x6C,  // rep insb
            0xBE, 0x00, 0x00, 0x30, 0x00,  // mov esi, 0x300000
            0xB9, 0x00, 0x04, 0x00, 0x00,  // mov ecx, 1024
            0x0F, 0xB6, 0x06,  // 2: movzx eax, byte [rsi]
            0x48, 0xFF, 0xC6,  // inc rsi
            0x85, 0xC0, 0x74, 0x09,  // test eax, eax; jz 3f
            0x4D, 0x6B, 0xC0, 0x1F,  // imul r8, r8, 31
            0x49, 0x01, 0xC0,  // add r8, rax
            0xFF, 0xCB,  // dec ebx
            0xFF, 0xC9, 0x75, 0xE9,  // 3: dec ecx; jnz 2b
            0x85, 0xDB, 0x7F, 0xCB,  // test ebx, ebx; jg 1b
            0xBE, 0x00, 0x00, 0x30, 0x00,  // mov esi, 0x300000
            0x4C, 0x89, 0x06,  // mov [rsi], r8
            0xB9, 0x08, 0x00, 0x00, 0x00,  // mov ecx, 8
            0xF3, 0x6E,  // rep outsb
        ] + exit(0)
}
