import Foundation
import TestSupport

/// Where the things under test are.
enum Locations {
    private static let ownFolder =
        (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe"))
        .map { ($0 as NSString).deletingLastPathComponent } ?? "."

    /// The VMM: in `MINGLE_PROGRAMS`, else where the package's build puts it, beside the tests.
    static let vmm: String = {
        let given = ProcessInfo.processInfo.environment["MINGLE_PROGRAMS"] ?? ""
        return (given.isEmpty ? ownFolder : given) + "/mingle-vmm"
    }()

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

extension TemporaryDirectory {
    /// A state directory as `mingle` prepares it.
    func stateDirectory() throws -> String {
        for name in ["guests", "terminal"] {
            try FileManager.default.createDirectory(
                atPath: path("state/\(name)"), withIntermediateDirectories: true)
        }
        return path("state")
    }
}
