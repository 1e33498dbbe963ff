public import VMMProtocol

extension GuestStatistics {
    /// It would share with others, and has no broker now.
    public var lacksBroker: Bool {
        guard let sharing, broker != nil else { return false }
        return sharing.isEnabled && !sharing.hasBroker && sharing.failure == nil
    }
    /// Its domain, and whether its broker is missing; nil with sharing off.
    public var domainText: String? {
        sharing.map { $0.domain + (lacksBroker ? ", no broker" : "") }
    }
}

extension SharingFigures {
    /// What this guest does not hold of its own: pages mapped to frames, and zero pages.
    public var sharedPages: UInt64 { pagesMapped + pagesZero }

    /// The figures of several guests together. Quantiles cannot be joined exactly: the median is the mean of the
    /// guests' medians, weighed by their windows; the 99th percentile that of the worst guest.
    public static func sum(_ figures: [SharingFigures]) -> SharingFigures {
        var sum = SharingFigures()
        var weighed = 0.0
        for one in figures {
            sum.fullScans += one.fullScans
            sum.pagesHashed += one.pagesHashed
            sum.pagesMerged += one.pagesMerged
            sum.pagesMapped += one.pagesMapped
            sum.pagesZero += one.pagesZero
            sum.pagesUnsharedTotal += one.pagesUnsharedTotal
            sum.pagesUnshared += one.pagesUnshared
            sum.pagesVolatile += one.pagesVolatile
            sum.pagesRehomed += one.pagesRehomed
            sum.mismatches += one.mismatches
            sum.brokerConnections += one.brokerConnections
            sum.mappings += one.mappings
            sum.arrangements += one.arrangements
            sum.putOffNoMemory += one.putOffNoMemory
            sum.putOffNoMapping += one.putOffNoMapping
            sum.metadataBytes += one.metadataBytes
            sum.cpuSeconds += one.cpuSeconds
            sum.lostSeconds += one.lostSeconds
            sum.wantedSeconds += one.wantedSeconds
            sum.lossPercent = max(sum.lossPercent, one.lossPercent)
            sum.windows += one.windows
            weighed += one.windowMedian * Double(one.windows)
            sum.window99 = max(sum.window99, one.window99)
            sum.windowMaximum = max(sum.windowMaximum, one.windowMaximum)
        }
        sum.windowMedian = sum.windows > 0 ? weighed / Double(sum.windows) : 0
        sum.hasBroker = !figures.isEmpty && figures.allSatisfy(\.hasBroker)
        sum.isEnabled = figures.contains(where: \.isEnabled)
        sum.holdsMerges = figures.contains(where: \.holdsMerges)
        sum.isHome = figures.allSatisfy(\.isHome)
        sum.isSettled = figures.allSatisfy(\.isSettled)
        sum.absorbsGaps = figures.allSatisfy(\.absorbsGaps)
        sum.domain = figures.first?.domain ?? ""
        sum.window = Set(figures.map(\.window)).sorted().joined(separator: ", ")
        return sum
    }
}
