import FrameStore

// Where a frame is put: so that a guest that maps it needs no mapping of its own for it.

extension FrameStoreCore {
    /// How far the look for a neighbour's place goes, in pages.
    static let placeReach = 16

    /// A place for a frame: such that it continues what its neighbours in one of the guests are mapped to, in the lowest
    /// layer if they differ; else that of the sighter's page number.
    func takePlace(_ donor: Client, _ sighted: ClientPage, _ client: Client, _ page: ClientPage)
        -> FrameLocation?
    {
        var best: FrameLocation?
        for (client, page) in [(donor, sighted), (client, page)] {
            for direction in [-1, 1] {
                let place = place(beside: page, of: client, direction)
                if let place, place.segment < best?.segment ?? .max { best = place }
            }
        }
        if let best, slots.take(at: best) { return best }
        return slots.take(page: sighted) ?? slots.takeOverflow()
    }

    /// A free place that continues what the nearest neighbour on one side is mapped to.
    private func place(beside page: ClientPage, of client: Client, _ direction: Int) -> FrameLocation? {
        for distance in 1...Self.placeReach {
            let neighbour = Int(page) + direction * distance
            guard 0..<client.map.pageCount ~= neighbour else { return nil }
            guard let frame = map.frame(of: .init(client.map, ClientPage(neighbour))) else { continue }
            return slots.freePlace(beside: map.slot(of: frame), distance: -direction * distance)
        }
        return nil
    }
}
