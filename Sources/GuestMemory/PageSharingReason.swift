/// Why a page of a guest is shared, or is not. Each page has just one.
public enum PageSharingReason: String, CaseIterable, Sendable {
    /// It maps a frame, or a copy of a pattern, that other pages map, too.
    case shared
    /// It maps the kernel's page of zeros.
    case zero
    /// It maps a frame that no other page maps.
    case singleMapper = "single-mapper"
    /// Its content was seen, in no other page of the domain.
    case unique
    /// The same, but a guest of another domain holds it, too. Only who may ask both can tell.
    case otherDomain = "other-domain"
    /// It is written too often, or was just written: it is left alone for a while.
    case volatile
    /// It stayed clean so far, and is looked at next; or its answer is on the way.
    case unseen
    /// A device is writing it.
    case device
    /// Its sharing was given up, since the process is short of mappings.
    case givenUp = "given-up"
    /// It could not be mapped or recorded; that is tried again later.
    case putOff = "put-off"
    /// It maps a frame of a store that is lost, or the store does not answer.
    case storeLost = "store-lost"
    /// It was never touched, and has no memory.
    case hole
}
