import Machine
import PayloadSupport

/// What a page of `churn` holds: a stamp in each of its 512 words, or a content common to all guests.
///
/// A stamp is the page's number (24 bits), the guest's index (10), the vCPU (6) and the sequence number of
/// the write (24), exclusive-or a mask of its own for each word, so that no two words of a page are equal.
struct Stamp {
    static let pageLimit: UInt64 = 1 << 24
    static let vcpuLimit: UInt64 = 1 << 6
    static let sequenceMask: UInt64 = (1 << 24) - 1

    /// How a page that is not as it should be came to be so.
    enum Verdict {
        case right
        /// All of it is older than it should be.
        case lost
        /// Parts of it are older than others.
        case torn
        /// Something in it was never written to this page.
        case foreign
    }

    private let page: UInt64
    private let owner: UInt64
    private let address: UInt64

    init(_ guest: Guest, page: UInt64, address: UInt64) {
        self.page = page
        self.address = address
        owner = page << 40 | (guest.index & 0x3FF) << 30 | guest.vcpu << 24
    }

    @inline(__always)
    private static func mask(_ word: UInt64) -> UInt64 { mixed(word) }

    func write(_ state: PageState) {
        if state.isCommon { return PageContent.common(at: address).write(to: address) }
        let stamp = owner | state.sequence & Stamp.sequenceMask
        for word in 0..<PageContent.wordCount {
            machine_store64(address + word * 8, stamp ^ Stamp.mask(word))
        }
    }

    func check(_ state: PageState) -> Verdict {
        if state.isCommon { return PageContent.common(at: address).matches(address) ? .right : judge(state) }
        let stamp = owner | state.sequence & Stamp.sequenceMask
        for word in 0..<PageContent.wordCount
        where machine_load64(address + word * 8) != stamp ^ Stamp.mask(word) { return judge(state) }
        return .right
    }

    /// The slow way, word by word. A page that turns right meanwhile is torn: nobody writes it but this vCPU.
    private func judge(_ state: PageState) -> Verdict {
        let common = PageContent.common(at: address)
        var current: UInt64 = 0
        var firstAge: UInt64?
        var isMixed = false
        for word in 0..<PageContent.wordCount {
            let value = machine_load64(address + word * 8)
            guard let age = age(value, word, common, state) else { return .foreign }
            if age == 0 { current += 1 }
            if let firstAge, firstAge != age { isMixed = true }
            firstAge = firstAge ?? age
        }
        return isMixed || current > 0 ? .torn : .lost
    }

    /// How many writes ago the word held this; nil if it never did. Zero and the common content, which have
    /// no sequence number, count as older than all stamps (unless they are what is due).
    private func age(_ value: UInt64, _ word: UInt64, _ common: PageContent, _ state: PageState) -> UInt64? {
        if value == common.word(word) { return state.isCommon ? 0 : Stamp.sequenceMask + 1 }
        if value == 0 { return Stamp.sequenceMask + 2 }
        let stamp = value ^ Stamp.mask(word)
        guard stamp & ~Stamp.sequenceMask == owner else { return nil }
        let age = (state.sequence &- stamp) & Stamp.sequenceMask
        // A common content has taken the newest number for itself.
        if age == 0 && state.isCommon { return nil }
        return age < 1 << 23 && age <= state.sequence ? age : nil
    }
}

/// Which write of a page is due in it: its number, from 1, and whether it was the common content.
struct PageState {
    var sequence: UInt64 = 0
    var isCommon = false
}
