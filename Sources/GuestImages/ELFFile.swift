internal import ImageFormats

/// An ELF file in memory; errors say what it is to the reader.
struct ELFFile {
    private let source: ImageSource
    private let file: ELF64
    private let what: String

    /// Checks header and segment table. A file without segments (a kernel module) is fine here.
    init(_ bytes: [UInt8], what: String) throws(GuestImagesError) {
        let source = ImageSource(bytes)
        file = try Self.reading(what) { () throws(ImageFormatError) in try ELF64(source) }
        self.source = source
        self.what = what
    }

    private static func reading<Result>(_ what: String, _ body: () throws(ImageFormatError) -> Result)
        throws(GuestImagesError) -> Result
    {
        do throws(ImageFormatError) { return try body() } catch {
            switch error {
            case .damaged(let reason): throw .invalidELF(what: what, reason: reason)
            case .unreadable(let code): throw .invalidELF(what: what, reason: "error \(code)")
            }
        }
    }

    /// Whether it is a program, of whatever system.
    var isProgram: Bool {
        file.type == ELF64.executable || file.segments.contains { $0.type == ELF64.load }
    }
    /// Whether the program needs a dynamic linker.
    var hasInterpreter: Bool { file.hasInterpreter }

    /// Throws unless this is a program whose loadable segments are sane and disjoint.
    func requireLoadable() throws(GuestImagesError) {
        _ = try Self.reading(what) { () throws(ImageFormatError) in try file.loadable(from: source) }
    }

    /// ABI version of a payload.
    func payloadVersion() throws(GuestImagesError) -> UInt32 {
        try Self.reading(what) { () throws(ImageFormatError) in
            try KernelNotes(of: file, in: source).payloadVersion()
        }
    }

    /// The bytes of the first section with that name; nil if there is none or it lies outside the file.
    func section(named name: String) throws(GuestImagesError) -> [UInt8]? {
        try Self.reading(what) { () throws(ImageFormatError) in try file.section(named: name, in: source) }
    }
}
