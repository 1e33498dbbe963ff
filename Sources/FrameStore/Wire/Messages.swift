/// The first message of a client that joins; its staging area travels with it.
package struct Hello: Equatable {
    /// Empty: a domain of its own.
    package var domain: String
    package var pageCount: UInt32
    package var build = BrokerProtocol.build

    package func encoded() -> [UInt8] {
        var writer = WireWriter(.hello)
        writer.put(BrokerProtocol.magic)
        writer.put(BrokerProtocol.version)
        writer.put(pageCount)
        writer.put(domain)
        writer.put(build)
        return writer.bytes
    }

    package init(domain: String, pageCount: UInt32) {
        self.domain = domain
        self.pageCount = pageCount
    }
    /// After the kind, magic and version.
    package init?(_ reader: inout WireReader) {
        guard let pageCount = reader.take(UInt32.self), let domain = reader.text(), let build = reader.text(),
            reader.left == 0
        else { return nil }
        self.domain = domain
        self.pageCount = pageCount
        self.build = build
    }
}

/// The broker's answer to ``Hello``; a read-only descriptor of the store travels with it.
package struct Welcome: Equatable {
    package var epoch: UInt64
    package var secret: [UInt8]
    package var batchLimit: UInt32
    /// The domain's name, also when the broker chose it.
    package var domain: String
    /// Names this session, should its client come back without it.
    package var token: SessionToken

    package func encoded() -> [UInt8] {
        var writer = WireWriter(.welcome, capacity: 512)
        writer.put(BrokerProtocol.version)
        writer.put(epoch)
        writer.put(token)
        writer.put(batchLimit)
        writer.put(secret)
        writer.put(domain)
        return writer.bytes
    }
    package init(epoch: UInt64, token: SessionToken, secret: [UInt8], batchLimit: UInt32, domain: String) {
        self.epoch = epoch
        self.token = token
        self.secret = secret
        self.batchLimit = batchLimit
        self.domain = domain
    }
    package init?(_ reader: inout WireReader) {
        guard reader.take(UInt16.self) == BrokerProtocol.version, let epoch = reader.take(UInt64.self),
            let token = reader.token(), let batchLimit = reader.take(UInt32.self),
            let secret = reader.take(count: PageHasher.secretSize),
            let domain = reader.text(), reader.left == 0
        else { return nil }
        self.init(epoch: epoch, token: token, secret: secret, batchLimit: batchLimit, domain: domain)
    }
}

package enum BatchCoding {
    private static let promotionsOnly: UInt32 = 1

    /// - Parameter movedFrom: earlier sessions of this client of which it maps no frame any more.
    package static func encode(_ batch: StoreBatch, number: UInt32, movedFrom: [SessionToken] = []) -> [UInt8]
    {
        var writer = WireWriter(
            .batch,
            capacity: 36 + batch.relocated.count * 12 + batch.forgotten.count * 4 + batch.sightings.count * 20
                + batch.uniform.count * 12
                + batch.publications.count * 8 + batch.questions.count * 4 + movedFrom.count
                * SessionToken.size)
        writer.put(number)
        writer.put(batch.isForPromotionsOnly ? promotionsOnly : 0)
        writer.put(batch.waiting)
        for count in [
            movedFrom.count, batch.relocated.count, batch.forgotten.count, batch.sightings.count,
            batch.uniform.count, batch.publications.count, batch.questions.count,
        ] {
            writer.put(UInt32(count))
        }
        for token in movedFrom { writer.put(token) }
        for moved in batch.relocated { writer.put(moved) }
        for page in batch.forgotten { writer.put(page) }
        for sighting in batch.sightings {
            writer.put(sighting.page)
            writer.put(sighting.hash.low)
            writer.put(sighting.hash.high)
        }
        for uniform in batch.uniform {
            writer.put(uniform.page)
            writer.put(uniform.pattern)
        }
        for publication in batch.publications {
            writer.put(publication.page)
            writer.put(publication.slot)
        }
        for page in batch.questions { writer.put(page) }
        return writer.bytes
    }

    /// After the kind.
    package static func decode(_ reader: inout WireReader)
        -> (number: UInt32, batch: StoreBatch, movedFrom: [SessionToken])?
    {
        guard let number = reader.take(UInt32.self), let flags = reader.take(UInt32.self),
            flags & ~promotionsOnly == 0, let waiting = reader.take(UInt16.self),
            let tokens = reader.take(UInt32.self), tokens <= SessionToken.limit,
            let relocated = reader.take(UInt32.self), let forgotten = reader.take(UInt32.self),
            let sightings = reader.take(UInt32.self), let uniform = reader.take(UInt32.self),
            let publications = reader.take(UInt32.self), let questions = reader.take(UInt32.self)
        else { return nil }
        var batch = StoreBatch()
        guard let movedFrom = reader.list(count: tokens, elementSize: SessionToken.size, { $0.token() }),
            let moved = reader.list(count: relocated, elementSize: 12, { $0.relocation() }),
            let pages = reader.list(count: forgotten, elementSize: 4, { $0.take(UInt32.self) }),
            let seen = reader.list(count: sightings, elementSize: 20, { sighting(&$0) }),
            let patterns = reader.list(
                count: uniform, elementSize: 12,
                { reader in
                    pair(&reader, UInt64.self).map {
                        StoreBatch.UniformPage(page: $0.page, pattern: $0.value)
                    }
                }),
            let published = reader.list(
                count: publications, elementSize: 8,
                { reader in
                    pair(&reader, UInt32.self).map { StoreBatch.Publication(page: $0.page, slot: $0.value) }
                }),
            let asked = reader.list(count: questions, elementSize: 4, { $0.take(ClientPage.self) }),
            reader.left == 0
        else { return nil }
        batch.hasMovedOver = !movedFrom.isEmpty
        batch.isForPromotionsOnly = flags & promotionsOnly != 0
        batch.waiting = waiting
        batch.relocated = moved
        batch.forgotten = pages
        batch.sightings = seen
        batch.uniform = patterns
        batch.publications = published
        batch.questions = asked
        return (number, batch, movedFrom)
    }

    private static func pair<Number: FixedWidthInteger>(
        _ reader: inout WireReader, _ type: Number.Type
    ) -> (page: UInt32, value: Number)? {
        guard let page = reader.take(UInt32.self), let value = reader.take(Number.self) else { return nil }
        return (page, value)
    }
    private static func sighting(_ reader: inout WireReader) -> StoreBatch.Sighting? {
        guard let page = reader.take(UInt32.self), let low = reader.take(UInt64.self),
            let high = reader.take(UInt64.self)
        else { return nil }
        return StoreBatch.Sighting(page: page, hash: ContentHash(low: low, high: high))
    }
}

package enum ReplyCoding {
    package static func encode(_ reply: StoreReply, number: UInt32) -> [UInt8] {
        let answers = reply.sightings.count + reply.uniform.count + reply.publications.count
        var writer = WireWriter(
            .reply, capacity: 40 + answers * 9 + reply.promotions.count * 12 + reply.sharing.count * 5)
        writer.put(number)
        writer.put(UInt8(reply.hasMore ? 1 : 0))
        writer.put(reply.market.sharers)
        writer.put(reply.market.waiting)
        writer.put(reply.microseconds)
        for list in [reply.sightings, reply.uniform, reply.publications] {
            writer.put(UInt32(list.count))
            for answer in list { put(answer, &writer) }
        }
        writer.put(UInt32(reply.promotions.count))
        for promotion in reply.promotions {
            writer.put(promotion.page)
            writer.put(promotion.location.value)
        }
        writer.put(UInt32(reply.singleMappers.count))
        for page in reply.singleMappers { writer.put(page) }
        writer.put(UInt32(reply.moved.count))
        for moved in reply.moved { writer.put(moved) }
        writer.put(UInt32(reply.sharing.count))
        for sharing in reply.sharing { put(sharing, &writer) }
        writer.put(UInt32(reply.companions.count))
        for mapper in reply.companions {
            writer.put(mapper.client)
            writer.put(mapper.page)
        }
        return writer.bytes
    }

    private static func put(_ sharing: PageSharing, _ writer: inout WireWriter) {
        let (kind, mappers): (UInt8, UInt32) =
            switch sharing {
            case .nothing: (0, 0)
            case .sighted: (1, 0)
            case .frame(let mappers): (2, mappers)
            case .uniform(let mappers): (3, mappers)
            }
        writer.put(kind)
        writer.put(mappers)
    }

    private static func sharing(_ reader: inout WireReader) -> PageSharing? {
        guard let kind = reader.take(UInt8.self), let mappers = reader.take(UInt32.self) else { return nil }
        return switch kind {
        case 0: .nothing
        case 1: .sighted
        case 2: .frame(mappers: mappers)
        case 3: .uniform(mappers: mappers)
        default: nil
        }
    }

    private static func mapper(_ reader: inout WireReader) -> FrameMapper? {
        guard let client = reader.take(UInt32.self), let page = reader.take(ClientPage.self) else {
            return nil
        }
        return FrameMapper(client: client, page: page)
    }

    private static func put(_ answer: StoreAnswer, _ writer: inout WireWriter) {
        switch answer {
        case .recorded: writer.put(UInt8(0))
        case .publish: writer.put(UInt8(1))
        case .refused: writer.put(UInt8(2))
        case .frame(let location):
            writer.put(UInt8(3))
            writer.put(location.value)
        }
    }

    private static func answer(_ reader: inout WireReader) -> StoreAnswer? {
        switch reader.take(UInt8.self) {
        case 0: .recorded
        case 1: .publish
        case 2: .refused
        case 3: reader.location().map { .frame($0) }
        default: nil
        }
    }

    /// After the kind. Whether it answers the batch is for the caller to check.
    package static func decode(_ reader: inout WireReader) -> (number: UInt32, reply: StoreReply)? {
        guard let number = reader.take(UInt32.self), let more = reader.take(UInt8.self), more < 2,
            let sharers = reader.take(UInt16.self), let waiting = reader.take(UInt16.self),
            let microseconds = reader.take(UInt32.self)
        else { return nil }
        var lists: [[StoreAnswer]] = []
        for _ in 0..<3 {
            guard let count = reader.take(UInt32.self),
                let list = reader.list(count: count, elementSize: 1, { answer(&$0) })
            else { return nil }
            lists.append(list)
        }
        guard let count = reader.take(UInt32.self),
            let promotions = reader.list(
                count: count, elementSize: 12,
                { reader -> StoreReply.Promotion? in
                    guard let page = reader.take(UInt32.self), let location = reader.location() else {
                        return nil
                    }
                    return StoreReply.Promotion(page: page, location: location)
                }),
            let singleMapperCount = reader.take(UInt32.self),
            let singleMappers = reader.list(
                count: singleMapperCount, elementSize: 4, { $0.take(ClientPage.self) }),
            let movedCount = reader.take(UInt32.self),
            let moved = reader.list(count: movedCount, elementSize: 12, { $0.relocation() }),
            let sharingCount = reader.take(UInt32.self),
            let sharing = reader.list(count: sharingCount, elementSize: 5, { sharing(&$0) }),
            let companionCount = reader.take(UInt32.self),
            let companions = reader.list(count: companionCount, elementSize: 8, { mapper(&$0) }),
            reader.left == 0
        else { return nil }
        var reply = StoreReply()
        (reply.sightings, reply.uniform, reply.publications) = (lists[0], lists[1], lists[2])
        reply.promotions = promotions
        reply.hasMore = more == 1
        (reply.market.sharers, reply.market.waiting) = (sharers, waiting)
        reply.microseconds = microseconds
        reply.singleMappers = singleMappers
        reply.moved = moved
        (reply.sharing, reply.companions) = (sharing, companions)
        return (number, reply)
    }
}

extension WireWriter {
    fileprivate mutating func put(_ moved: Relocation) {
        put(moved.page)
        put(moved.location.value)
    }
}

extension WireReader {
    fileprivate mutating func location() -> FrameLocation? {
        guard let value = take(UInt64.self), value < FrameLocation.end else { return nil }
        return FrameLocation(value)
    }
    fileprivate mutating func relocation() -> Relocation? {
        guard let page = take(UInt32.self), let location = location() else { return nil }
        return Relocation(page: page, location: location)
    }
}
