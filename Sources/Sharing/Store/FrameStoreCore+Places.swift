// Where a frame is put: so that a guest that maps it needs no mapping of its own for it.

extension FrameStoreCore {
    /// How far the look for a neighbour's place goes, in pages.
    static let placeReach = 16

    /// A place for a frame: such that it continues what its neighbours in one of the guests are mapped to, in the lowest
    /// layer if they differ; else that of the sighter's page number.
    func takePlace(_ donor: Client, _ sighted: ClientPage, _ client: Client, _ page: ClientPage)
        -> FrameLocation?
    {
        let places = placesBesideThose(of: donor, sighted) + placesBesideThose(of: client, page)
        if let place = places.min(by: { $0.segment < $1.segment }), slots.take(at: place) { return place }
        return slots.take(page: sighted) ?? slots.takeOverflow()
    }

    /// Free places that continue what the neighbours on either side are mapped to.
    private func placesBesideThose(of client: Client, _ page: ClientPage) -> [FrameLocation] {
        [-1, 1].compactMap { direction in
            for distance in 1...Self.placeReach {
                let neighbour = Int(page) + direction * distance
                guard 0..<client.pages.count ~= neighbour else { return nil }
                let tag = client.pages[neighbour]
                guard tag & Tag.leased != 0, tag & Tag.uniform == 0 else { continue }
                return slots.freePlace(
                    beside: FrameLocation(table[tag & Tag.index].place), distance: -direction * distance)
            }
            return nil
        }
    }
}
