// Where a frame is put: so that a guest that maps it needs no mapping of its own for it.

extension FrameStoreCore {
    /// How far the look for a neighbour's place goes, in pages.
    static let placeReach = 16

    /// A place for a frame: such that it continues what its neighbours in one of the guests are mapped to; else that of
    /// the sighter's page number.
    func takePlace(_ donor: Client, _ sighted: ClientPage, _ client: Client, _ page: ClientPage)
        -> FrameLocation?
    {
        takePlace(besideThoseOf: donor, sighted) ?? takePlace(besideThoseOf: client, page)
            ?? slots.take(page: sighted) ?? slots.takeOverflow()
    }

    private func takePlace(besideThoseOf client: Client, _ page: ClientPage) -> FrameLocation? {
        for direction in [-1, 1] {
            for distance in 1...Self.placeReach {
                let neighbour = Int(page) + direction * distance
                guard 0..<client.pages.count ~= neighbour else { break }
                let tag = client.pages[neighbour]
                guard tag & Tag.leased != 0, tag & Tag.uniform == 0 else { continue }
                let location = FrameLocation(table[tag & Tag.index].place)
                if let place = slots.take(beside: location, distance: -direction * distance) { return place }
                break
            }
        }
        return nil
    }
}
