import Foundation

@testable import MingleSupport

/// What guests and their broker take of the host's memory, by two counts of the kernel's.
final class MemoryMeter {
    private let tool: CommandLineTool
    private let group: ControlGroup?
    /// Why there is no control group.
    let problem: String?

    /// What the tool starts from here on is counted.
    init(_ tool: CommandLineTool) {
        self.tool = tool
        switch ControlGroup.make("mingle-test-\(UUID().uuidString)") {
        case .success(let group): (self.group, problem) = (group, nil)
        case .failure(let reason): (group, problem) = (nil, "\(reason)")
        }
        tool.group = group?.path
    }

    deinit { if let group { _ = ControlGroup.remove(group.path) } }

    /// All that is charged to the control group, in bytes; nil without one.
    var groupBytes: Int? { group?.figures().map { Int($0.currentBytes) } }

    /// The blocks of every memory file that a guest or the broker has open or mapped, each counted once, and anonymous
    /// memory.
    func countedBytes(_ guests: [SharingGuest]) throws -> Int {
        var processes = guests.map(\.process)
        if let broker = try BrokerReport.read(socket: tool.brokerSocket) { processes += broker.processes }
        var files: [UInt64: Int] = [:]
        var anonymous = 0
        for process in processes {
            for folder in ["fd", "map_files"] { Self.addFiles("/proc/\(process)/\(folder)", &files) }
            let figures = ProcessFigures(process: process)
            anonymous += Int((figures?.anonymousBytes ?? 0) + (figures?.swapBytes ?? 0))
        }
        return files.values.reduce(anonymous, +)
    }

    /// What a VMM of a small guest takes for itself, without its buffers.
    private static let leanBytes: UInt64 = 2 << 20

    /// Waits until the guests' VMMs have given their buffers back, which they do when they have had nothing to merge for some
    /// passes: a MiB of staging and a MiB of anonymous memory each, that would be counted or not as it happens.
    func waitUntilBuffersAreFree(_ guests: [SharingGuest]) throws {
        for guest in guests {
            try guest.wait("its buffers are free") {
                var files: [UInt64: Int] = [:]
                Self.addFiles("/proc/\(guest.process)/fd", &files, named: "/memfd:mingle-staging")
                let anonymous = ProcessFigures(process: guest.process)?.anonymousBytes ?? .max
                if files.values.allSatisfy({ $0 == 0 }), anonymous < Self.leanBytes { return true }
                // A policy, though it is the old one, is a reason for a pass.
                try guest.ask("share-cpu 100")
                return false
            }
        }
    }

    private static func addFiles(
        _ folder: String, _ files: inout [UInt64: Int], named start: String = "/memfd:mingle"
    ) {
        let manager = FileManager.default
        for name in (try? manager.contentsOfDirectory(atPath: folder)) ?? [] {
            let path = folder + "/" + name
            guard let target = try? manager.destinationOfSymbolicLink(atPath: path),
                target.hasPrefix(start)
            else { continue }
            var status = stat()
            // The link leads to the file itself. All of them are on one device, the kernel's own.
            if stat(path, &status) == 0 { files[UInt64(status.st_ino)] = Int(status.st_blocks) * 512 }
        }
    }
}
