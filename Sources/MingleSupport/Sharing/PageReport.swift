internal import GuestMemory
internal import VMMProtocol

/// Why a page of a running guest is shared or not, and with whom: a line or two for people.
public struct PageReport: Sendable {
    public let text: String

    /// - Parameter page: its number in the guest's memory file.
    public init(_ page: Int, of guest: String, in directory: StateDirectory) throws(SupportError) {
        let client = try ControlClient(guest: guest, in: directory)
        let answer = try client.explain(page: page)
        var reason = answer.reason
        // Whether other domains hold it takes a look at all pages.
        if reason == .unique {
            let all = try SharingExplanation.read(guest, in: directory).reasons
            if all.indices.contains(page), all[page] == .otherDomain { reason = .otherDomain }
        }
        var names: [UInt32: String] = [:]
        for record in try GuestRegistry(directory: directory).guests().running {
            names[UInt32(clamping: record.process)] = record.name
        }
        var text =
            "page \(page) (0x\(String(page, radix: 16))) of \(guest): \(reason.rawValue), \(reason.meaning)"
        text += "\nbacked by \(answer.backing)"
        if answer.mappers > 0 { text += "; \(answer.mappers) pages map the same, this one included" }
        for other in answer.companions {
            text += "\n  \(names[other.process] ?? "process \(other.process)"), page \(other.page)"
        }
        let named = answer.companions.count + 1
        if answer.mappers > named, !answer.companions.isEmpty {
            text += "\n  and \(answer.mappers - named) more"
        }
        self.text = text
    }
}
