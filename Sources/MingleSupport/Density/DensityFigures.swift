import LinuxHost
public import VMMProtocol

/// What guests hold, counted by content: the best that any merging could do.
public struct ContentCount: Equatable, Sendable {
    /// Pages that are allocated.
    public var allocated: UInt64 = 0
    /// Of these, pages of zeros.
    public var zero: UInt64 = 0
    /// Different contents, without zeros.
    public var distinct: UInt64 = 0

    public init() {}

    /// Of guests in one domain.
    public init(_ guests: [[PageDigest]]) {
        var contents: Set<PageDigest> = []
        for digests in guests {
            allocated += UInt64(digests.count)
            for digest in digests {
                if digest.isZero { zero += 1 } else { contents.insert(digest) }
            }
        }
        distinct = UInt64(contents.count)
    }

    /// Pages that are not needed when every content is kept once and zeros not at all.
    public var idealSavedPages: UInt64 { allocated - distinct }
}

/// Two looks at the same pages.
public struct PageComparison: Equatable, Sendable {
    /// Pages that held something at one of the looks.
    public var checked: UInt64 = 0
    public var mismatches: UInt64 = 0

    public init() {}

    public init(before: [PageDigest], after: [PageDigest]) {
        for index in 0..<max(before.count, after.count) {
            let first = index < before.count ? before[index] : nil
            let second = index < after.count ? after[index] : nil
            if first?.isZero ?? true, second?.isZero ?? true, first == second { continue }
            checked += 1
            if first != second { mismatches += 1 }
        }
    }

    static func + (left: PageComparison, right: PageComparison) -> PageComparison {
        var sum = left
        sum.checked += right.checked
        sum.mismatches += right.mismatches
        return sum
    }
}

/// How much was saved, when.
public struct SavingSeries: Equatable, Sendable {
    /// What whoever merges has done since the guests were started.
    public struct Work: Equatable, Sendable {
        /// Engines and broker; ksmd.
        public var cpuSeconds = 0.0
        /// The broker's part of it, answers to our own questions included.
        public var brokerCPUSeconds = 0.0
        /// Of all guests' engines together; of ksmd.
        public var passes: UInt64 = 0
        public var pagesHashed: UInt64 = 0

        public init() {}
    }
    public struct Sample: Equatable, Sendable {
        /// Since all guests were up.
        public var seconds: Double
        public var pages: UInt64
        public var work: Work
    }
    public private(set) var samples: [Sample] = []

    public init() {}

    /// - Parameter seconds: since all guests were up.
    public mutating func add(seconds: Double, pages: UInt64, work: Work = Work()) {
        samples.append(Sample(seconds: seconds, pages: pages, work: work))
    }

    /// When so much was reached first; nil if it never was.
    public func seconds(toReach pages: Double) -> Double? {
        samples.first { Double($0.pages) >= pages }?.seconds
    }

    /// CPU time until then since the first sample; nil if it never was.
    public func cpuSeconds(toReach pages: Double) -> Double? {
        guard let sample = samples.first(where: { Double($0.pages) >= pages }) else { return nil }
        return sample.work.cpuSeconds - (samples.first?.work.cpuSeconds ?? 0)
    }

    /// Turns another measure into that of pages saved.
    mutating func scale(_ factor: Double) {
        for index in samples.indices {
            samples[index].pages = UInt64((Double(samples[index].pages) * factor).rounded())
        }
    }
    public var latestPages: UInt64 { samples.last?.pages ?? 0 }
}

/// One run of the guests, measured.
public struct RunFigures: Equatable, Sendable {
    public var memory = MemoryFigures()
    /// nil, with the reason, where no control group could be made.
    public var groupBytes: UInt64?
    public var groupKernelBytes: UInt64 = 0
    public var groupFileBytes: UInt64 = 0
    public var groupProblem: String?
    /// How much more of the host's memory is in use than before broker and guests were started.
    public var hostUsedBytes: Int64?
    public var content = ContentCount()
    public var sharing = SharingFigures()
    /// Frames: different contents that are kept once for several.
    public var pagesShared: UInt64 = 0
    /// Mappings beyond the first of each.
    public var pagesSharing: UInt64 = 0
    /// Pages that KSM merged for others on this host meanwhile: its CPU time and passes are theirs, too.
    public var pagesOfOthers: UInt64 = 0
    /// The engine's bookkeeping is the kernel's memory, and in no process.
    public var isMetadataOfKernel = false
    public var series = SavingSeries()
    public var verification: PageComparison?
    public var verificationSteps: [String] = []

    public init() {}

    /// Pages saved by the engine's own count.
    public var countedSavedPages: UInt64 { pagesSharing + sharing.pagesZero }

    /// What the control group holds beyond the sum of our parts, without the kernel's memory and pages of files.
    public var unexplainedBytes: Int64? {
        groupBytes.map {
            Int64(clamping: $0) - Int64(clamping: groupKernelBytes) - Int64(clamping: groupFileBytes)
                - Int64(clamping: memory.residentBytes)
        }
    }
}

/// What a run saved against one with sharing off, or by its own count where there was none.
public struct Saving: Equatable, Sendable {
    /// What the kernel keeps for a mapping (struct vm_area_struct, and its share of the tree).
    static let mappingBytes: Int64 = 272

    public let savedBytes: Int64
    public let idealBytes: UInt64
    /// Saved minus all metadata, kernel mappings included.
    public let profitBytes: Int64
    /// Whether it is the kernel's count.
    public let isMeasured: Bool

    public init(_ run: RunFigures, baseline: RunFigures?) {
        idealBytes = run.content.idealSavedPages * RunChecks.pageSize
        let mappings = Int64(clamping: run.sharing.mappings) * Self.mappingBytes
        if let baseline {
            isMeasured = true
            savedBytes =
                Int64(clamping: baseline.memory.residentBytes) - Int64(clamping: run.memory.residentBytes)
            let tables =
                Int64(clamping: run.memory.pageTableBytes) - Int64(clamping: baseline.memory.pageTableBytes)
            let metadata = run.isMetadataOfKernel ? Int64(clamping: run.sharing.metadataBytes) : 0
            profitBytes = savedBytes - mappings - max(0, tables) - metadata
        } else {
            isMeasured = false
            savedBytes = Int64(clamping: run.countedSavedPages * RunChecks.pageSize)
            let metadata = run.sharing.metadataBytes + run.memory.stagingBytes + run.memory.brokerBytes
            profitBytes = savedBytes - Int64(clamping: metadata) - mappings
        }
    }

    /// nil where nothing could be saved.
    public var ratio: Double? { idealBytes == 0 ? nil : Double(savedBytes) / Double(idealBytes) }
}
