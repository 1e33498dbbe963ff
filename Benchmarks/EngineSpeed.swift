import FrameStore
import CLinux
import LinuxHost
import Glibc

/// Parts of the engine against what the machine can do.
struct EngineSpeed {
    let programs: Programs
    let options: SharingOptions

    private static let pageSize = 4096

    // MARK: looking at memory

    /// What an engine looks at in a CPU second, against the same hash over as much memory and nothing else.
    func sweep() throws -> Finding {
        let run = DensityRun(
            programs: programs, guests: 1, memory: 128, arguments: "unique=1", seconds: 3,
            options: ["--share-when-up"] + options.sharing)
        var engine: [Double] = []
        var plain: [Double] = []
        for _ in 0..<options.rounds {
            engine.append(try Self.scanRate(run.result(.builtin)))
            plain.append(try Self.hashRate(bytes: 128 << 20))
        }
        var finding = Finding(
            figure: "scan of memory that is its guest's own, against XXH3 alone, per CPU second")
        finding.builtin = decimal(median(engine) / 1e9, 2) + " GB"
        finding.off = "XXH3 " + decimal(median(plain) / 1e9, 2) + " GB"
        finding.remark = decimal(median(engine) / median(plain), 2) + " x"
        finding.values = ["builtin": engine, "xxh3": plain]
        return finding
    }

    /// Bytes hashed by CPU time of engine and broker, up to the sample in which everything was.
    private static func scanRate(_ result: DensityResult) throws -> Double {
        guard let first = result.engine.samples.first,
            let done = result.engine.samples.first(where: {
                $0.pages_hashed >= result.memory.touched_pages * 0.99
            }), done.cpu_seconds > first.cpu_seconds
        else { throw Failure("the engine did not look at everything in 3 s") }
        return done.pages_hashed * Double(pageSize) / (done.cpu_seconds - first.cpu_seconds)
    }

    private static func hashRate(bytes: Int) throws -> Double {
        guard
            let hasher = PageHasher(
                secret: (0..<PageHasher.secretSize).map { UInt8(truncatingIfNeeded: $0 &* 37) }),
            let memory = mmap(nil, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
            memory != MAP_FAILED
        else { throw Failure("no memory to hash") }
        defer { munmap(memory, bytes) }
        let words = memory.assumingMemoryBound(to: UInt64.self)
        for index in 0..<bytes / 8 { words[index] = UInt64(index) &* 0x9E37_79B9_7F4A_7C15 }
        let start = threadSeconds()
        var sum: UInt64 = 0
        for offset in stride(from: 0, to: bytes, by: pageSize) {
            sum ^= hasher.hash(UnsafeRawBufferPointer(start: memory + offset, count: pageSize)).low
        }
        let seconds = threadSeconds() - start
        guard sum != 0, seconds > 0 else { throw Failure("the hash did nothing") }
        return Double(bytes) / seconds
    }

    private static func threadSeconds() -> Double {
        Double(threadCPUNanoseconds()) / 1e9
    }

    // MARK: remapping

    private static let remapped = 4096

    /// The system call that gives a page or a stretch another backing, while others map the same store in single pages.
    func remap() throws -> Finding {
        let store = try Self.memoryFile("bench-store")
        defer { close(store) }
        var times: [Int: [Double]] = [:]
        for others in [0, 15] {
            var processes: [MeasuredProcess] = []
            for _ in 0..<others {
                processes.append(
                    try MeasuredProcess([
                        "/proc/self/exe", "map-store", "/proc/\(getpid())/fd/\(store)", "\(getpid())",
                    ]))
            }
            for process in processes where try process.wait(for: "mapped") == nil {
                throw Failure("a process could not map the store: \(process.output)")
            }
            for _ in 0..<options.rounds + 2 {
                times[others, default: []].append(try Self.microsecondsOfRemaps(store, pages: 1))
                times[others + 100, default: []].append(try Self.microsecondsOfRemaps(store, pages: 128))
            }
        }
        func value(_ key: Int) -> Double { median(times[key] ?? []) }
        var finding = Finding(
            figure: "remap of a lone page / a page of a stretch of 128, with 16 processes mapping the store")
        finding.builtin = "\(decimal(value(15), 2)) / \(decimal(value(115), 3)) µs"
        finding.off = "1 process: \(decimal(value(0), 2)) / \(decimal(value(100), 3)) µs"
        finding.remark = "\(decimal(value(15) / value(0), 2)) / \(decimal(value(115) / value(100), 2)) x"
        finding.values = ["alone": times[0] ?? [], "with 15 others": times[15] ?? []]
        return finding
    }

    private static func memoryFile(_ name: String) throws -> Int32 {
        let bytes = remapped * 2 * pageSize
        let file = mingle_memfd_create(name, UInt32(MFD_CLOEXEC))
        guard file >= 0, ftruncate(file, bytes) == 0 else { throw Failure("no memory file") }
        let block = [UInt8](repeating: 0xA5, count: 1 << 20)
        for offset in stride(from: 0, to: bytes, by: block.count)
        where pwrite(file, block, block.count, offset) != block.count {
            close(file)
            throw Failure("the memory file cannot be written")
        }
        return file
    }

    /// Gives every second stretch of a guest's memory the store's pages.
    private static func microsecondsOfRemaps(_ store: Int32, pages: Int) throws -> Double {
        let bytes = remapped * 2 * pageSize
        let home = try memoryFile("bench-home")
        defer { close(home) }
        guard let guest = mmap(nil, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, home, 0), guest != MAP_FAILED
        else {
            throw Failure("no mapping")
        }
        defer { munmap(guest, bytes) }
        // Page tables that have to be taken down, as a guest's.
        for offset in stride(from: 0, to: bytes, by: pageSize) {
            guest.storeBytes(of: 1, toByteOffset: offset, as: UInt8.self)
        }
        let start = threadSeconds()
        var done = 0
        for page in stride(from: 0, to: remapped * 2, by: pages * 2) {
            let flags = MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE
            let result = mmap(
                guest + page * pageSize, pages * pageSize, PROT_READ | PROT_WRITE, flags, store,
                page * pageSize)
            guard result != MAP_FAILED else {
                throw Failure("a page cannot be remapped: \(String(cString: strerror(errno)))")
            }
            done += pages
        }
        return (threadSeconds() - start) / Double(done) * 1e6
    }

    /// What the others do: map every second page of the store, read it, and stay until their parent ends them or is gone.
    static func mapStore(path: String, parent: pid_t) throws {
        _ = mingle_prctl(PR_SET_PDEATHSIG, UInt(SIGKILL))
        guard getppid() == parent else { return }
        let store = open(path, O_RDONLY | O_CLOEXEC)
        guard store >= 0 else { throw Failure("cannot open \(path)") }
        var sum = 0
        for page in stride(from: 0, to: remapped * 2, by: 2) {
            guard let at = mmap(nil, pageSize, PROT_READ | PROT_WRITE, MAP_PRIVATE, store, page * pageSize),
                at != MAP_FAILED
            else { throw Failure("cannot map \(path)") }
            sum += Int(at.load(as: UInt8.self))
        }
        let text = Array("mapped \(sum)\n".utf8)
        _ = text.withUnsafeBytes { write(1, $0.baseAddress, $0.count) }
        while true { pause() }
    }
}
