import Foundation

/// Where the things under test are.
enum Locations {
    private static let ownFolder =
        (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe"))
        .map { ($0 as NSString).deletingLastPathComponent } ?? "."

    /// The VMM that the package's build puts beside the tests.
    static let vmm = ownFolder + "/mingle-vmm"

    /// The folder of the payloads: in `MINGLE_SHARE`, else in the nearest `.build-guests` upwards.
    static let payloads: String? = {
        let manager = FileManager.default
        func holdsPayloads(_ folder: String) -> String? {
            manager.fileExists(atPath: folder + "/payloads/hello.elf") ? folder + "/payloads" : nil
        }
        if let share = ProcessInfo.processInfo.environment["MINGLE_SHARE"], !share.isEmpty {
            return holdsPayloads(share)
        }
        var folder = ownFolder
        while folder != "/", !folder.isEmpty, folder != "." {
            if let found = holdsPayloads(folder + "/.build-guests") { return found }
            folder = (folder as NSString).deletingLastPathComponent
        }
        return nil
    }()

    static func payload(_ name: String) throws -> String {
        guard let payloads else { throw Failure("the payloads are not built: run `make guests`") }
        return "\(payloads)/\(name).elf"
    }
}

/// What went wrong in a test's own machinery.
struct Failure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

/// A folder that goes with its owner.
final class TemporaryFolder: Sendable {
    let path: String

    init() throws {
        path = FileManager.default.temporaryDirectory.path + "/mingle-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func file(_ name: String) -> String { "\(path)/\(name)" }

    /// The bytes of a file in it; none while it does not exist.
    func bytes(_ name: String) -> [UInt8] {
        FileManager.default.contents(atPath: file(name)).map(Array.init) ?? []
    }
    func text(_ name: String) -> String { String(decoding: bytes(name), as: UTF8.self) }

    func write(_ bytes: [UInt8], _ name: String) throws -> String {
        try Data(bytes).write(to: URL(fileURLWithPath: file(name)))
        return file(name)
    }

    /// A state directory as `mingle` prepares it.
    func stateDirectory() throws -> String {
        for name in ["guests", "terminal"] {
            try FileManager.default.createDirectory(
                atPath: file("state/\(name)"), withIntermediateDirectories: true)
        }
        return file("state")
    }
}

/// Looks every 2 ms until the condition holds.
/// - Returns: false when it did not within `seconds`.
func eventually(within seconds: Double = 30, _ condition: () throws -> Bool) rethrows -> Bool {
    let start = ContinuousClock.now
    while true {
        if try condition() { return true }
        if ContinuousClock.now - start > .seconds(seconds) { return false }
        usleep(2000)
    }
}
