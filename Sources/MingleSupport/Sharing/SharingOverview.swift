internal import GuestMemory
internal import LinuxHost
public import VMMProtocol

/// What running guests share, guest by guest and domain by domain.
public struct SharingOverview: Equatable, Sendable {
    /// The guests of one domain of one broker, and its store.
    public struct Domain: Equatable, Sendable {
        public var name: String
        public var guests: [String]
        public var figures: SharingFigures
        /// nil where no broker answered.
        public var store: BrokerReport.Domain?

        public var pagesSharing: UInt64 { store?.pagesSharing ?? 0 }
        /// What further mappings of frames, and zero pages, would take.
        public var savedBytes: UInt64 { (pagesSharing + figures.pagesZero) * RunChecks.pageSize }
    }

    public var guests: [GuestStatistics]
    /// Why some guests share with nobody now, for people.
    public var warnings: [String] = []
    public var domains: [Domain]

    /// Puts guests and stores together.
    /// - Parameter stores: by the brokers' sockets.
    public init(guests: [GuestStatistics], stores: [String: BrokerReport]) {
        self.guests = guests
        var domains: [Domain] = []
        for guest in guests {
            guard let sharing = guest.sharing else { continue }
            // A guest without a domain's name shares with nobody.
            let isNamed = sharing.domain != SharingFigures.ownDomain
            let name = isNamed ? sharing.domain : "(\(guest.name))"
            let store =
                isNamed ? stores[guest.broker ?? ""]?.domains.first { $0.name == sharing.domain } : nil
            if isNamed, let index = domains.firstIndex(where: { $0.name == name && $0.store == store }) {
                domains[index].guests.append(guest.name)
                domains[index].figures = .sum([domains[index].figures, sharing])
            } else {
                domains.append(Domain(name: name, guests: [guest.name], figures: sharing, store: store))
            }
        }
        self.domains = domains
    }

    /// Asks running guests and their brokers.
    /// - Parameter names: of guests; empty: all.
    /// - Returns: what was found, and what went wrong.
    public static func read(in directory: StateDirectory, names: [String]) throws(SupportError)
        -> (SharingOverview, [SupportError])
    {
        let registry = GuestRegistry(directory: directory)
        let found = try registry.guests()
        var problems: [SupportError] = []
        // A damaged record tells the name at least, by which the guest can be asked.
        let running = found.running.map(\.name) + found.unreadable.map(\.name)
        for name in names where !running.contains(name) {
            problems.append(
                .requirement(problem: "no guest called '\(name)' runs", advice: "see 'mingle ps'"))
        }
        var guests: [GuestStatistics] = []
        for name in running where names.isEmpty || names.contains(name) {
            do throws(SupportError) {
                guests.append(
                    try ControlClient(
                        guest: name, path: directory.controlPath + "/" + name, seconds: 3
                    )
                    .statistics())
            } catch {
                // Nobody asked for one that has ended since.
                guard names.isEmpty, registry.isEnding(name) else {
                    problems.append(error)
                    continue
                }
            }
        }
        var stores: [String: BrokerReport] = [:]
        for socket in Set(guests.compactMap(\.broker)) {
            do throws(SupportError) { stores[socket] = try BrokerReport.read(socket: socket) } catch {
                problems.append(error)
            }
        }
        var overview = SharingOverview(guests: guests, stores: stores)
        overview.warnings = guests.filter(\.lacksBroker).map { guest in
            let broker = guest.broker ?? ""
            let what =
                LostBroker.isLost(broker)
                ? "its frame broker is lost: nobody listens at \(broker)"
                : "it has not joined its frame broker yet"
            return "guest '\(guest.name)' shares with nobody now: \(what)"
                + (guest.sharing?.brokerError.map { " (\($0))" } ?? "")
        }
        return (overview, problems)
    }

    // MARK: output

    public var json: JSONValue {
        .object([("guests", .array(guests.map(\.shown))), ("domains", .array(domains.map(\.json)))])
    }

    public var table: String {
        var first = TextTable(
            [
                "GUEST", "DOMAIN", "WINDOW", "PRESSURE", "HOLD", "MAPPED", "ZERO", "UNSHARED", "VOLATILE",
                "CPU",
                "LOSS", "WINDOWS", "MAPPINGS", "PUT OFF",
            ],
            rightAligned: [
                "MAPPED", "ZERO", "UNSHARED", "VOLATILE", "CPU", "LOSS", "WINDOWS", "MAPPINGS", "PUT OFF",
            ])
        for guest in guests {
            guard let sharing = guest.sharing else {
                first.add(
                    [guest.name, "sharing off", "-", guest.pressureText]
                        + [String](repeating: "-", count: 10))
                continue
            }
            first.add(
                [
                    guest.name, guest.domainText ?? "-", sharing.isEnabled ? sharing.window : "off",
                    guest.pressureText, sharing.hold ?? "-",
                ]
                    + [sharing.pagesMapped, sharing.pagesZero, sharing.pagesUnshared, sharing.pagesVolatile]
                    .map { "\($0)" }
                    + [
                        Decimals.text(sharing.cpuSeconds, places: 2) + "s",
                        Decimals.text(sharing.lossPercent, places: 1) + "%", "\(sharing.windows)",
                        "\(sharing.mappings)", "\(sharing.putOffNoMemory + sharing.putOffNoMapping)",
                    ])
        }
        var second = TextTable(
            ["DOMAIN", "GUESTS", "SHARED", "SHARING", "ZERO", "STORE", "SAVED"],
            rightAligned: ["GUESTS", "SHARED", "SHARING", "ZERO", "STORE", "SAVED"])
        for domain in domains {
            second.add([
                domain.name, "\(domain.guests.count)", domain.store.map { "\($0.frames)" } ?? "-",
                domain.store.map { "\($0.pagesSharing)" } ?? "-", "\(domain.figures.pagesZero)",
                domain.store.map { ByteSize.format($0.allocatedBytes) } ?? "-",
                ByteSize.format(domain.savedBytes),
            ])
        }
        return domains.isEmpty ? first.text : first.text + "\n\n" + second.text
    }
}

extension SharingOverview.Domain {
    var json: JSONValue {
        .object([
            ("name", .string(name)), ("guests", .array(guests.map { .string($0) })),
            ("pages_shared", .optional(store?.frames)), ("pages_sharing", .optional(store?.pagesSharing)),
            ("pages_zero", .unsigned(figures.pagesZero)),
            ("pages_unshared", .unsigned(figures.pagesUnshared)),
            ("pages_volatile", .unsigned(figures.pagesVolatile)),
            ("store_bytes", .optional(store?.allocatedBytes)),
            ("saved_bytes", .unsigned(savedBytes)), ("cpu_seconds", .decimal(figures.cpuSeconds)),
            ("windows", .unsigned(figures.windows)), ("mappings", .unsigned(figures.mappings)),
        ])
    }
}

extension GuestStatistics {
    /// How short memory is, and what follows from it.
    var pressureText: String {
        [pressure ?? "-", sharing?.holdsMerges == true ? "held" : nil, pausedFor == nil ? nil : "paused"]
            .compactMap { $0 }.joined(separator: ", ")
    }

    /// What `mingle stats --json` tells of it.
    var shown: JSONValue {
        .object(
            pairs { $0.visitTold($1) }
                + [("broker_lost", .boolean(lacksBroker)), ("sharing", sharing?.shown ?? .null)])
    }
}

extension SharingFigures {
    /// What it tells of them.
    var shown: JSONValue { .object(pairs { $0.visitTold($1) } + [("window_microseconds", windowsJSON)]) }

    /// How long its windows took.
    var windowsJSON: JSONValue {
        .object([
            ("p50", .decimal(windowMedian)), ("p99", .decimal(window99)), ("max", .decimal(windowMaximum)),
            ("count", .unsigned(windows)),
        ])
    }
}

extension BrokerReport {
    /// For people.
    public var table: String {
        var first = TextTable(
            ["DOMAIN", "CLIENTS", "SHARED", "SHARING", "SIGHTINGS", "STORE", "ORPHANS"],
            rightAligned: ["CLIENTS", "SHARED", "SHARING", "SIGHTINGS", "STORE", "ORPHANS"])
        for domain in domains {
            first.add([
                domain.name, "\(domain.clients)", "\(domain.frames)", "\(domain.pagesSharing)",
                "\(domain.sightings)",
                ByteSize.format(domain.allocatedBytes), ByteSize.format(domain.orphanBytes),
            ])
        }
        var second = TextTable(
            ["CLIENT", "DOMAIN", "PAGES", "REFERENCES", "CONNECTION"],
            rightAligned: ["CLIENT", "PAGES", "REFERENCES"])
        for client in clients {
            second.add([
                client.process.map { "\($0)" } ?? "-", client.domain, "\(client.pages)",
                "\(client.references)",
                client.isSilent ? "closed" : "open",
            ])
        }
        let processes = processes.map { "\($0)" }.joined(separator: ", ")
        let charged = group.map {
            "\nframes are charged to control group \($0)" + (hasOwnCgroup ? ", its own" : "")
        }
        let kept =
            constraints.isEmpty
            ? "" : "\nkept from whoever started it: " + constraints.map(\.description).joined(separator: ", ")
        return
            "broker: processes \(processes), \(ByteSize.format(anonymousBytes)) of its own, at \(socket)"
            + (charged ?? "") + kept + "\n\n" + first.text + "\n\n" + second.text
    }
}

extension ControlClient {
    /// Connects to a guest by its name.
    public convenience init(guest: String, in directory: StateDirectory) throws(SupportError) {
        switch try GuestRegistry(directory: directory).probe(guest) {
        case .absent:
            throw .requirement(problem: "no guest called '\(guest)' runs", advice: "see 'mingle ps'")
        case .running, .unreadable: break
        }
        try self.init(guest: guest, path: directory.controlPath + "/" + guest)
    }
}
