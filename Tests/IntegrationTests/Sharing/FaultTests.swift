import Foundation
import LinuxHost
import Testing
import TestSupport

extension HostKVM {
    /// Faults on purpose are for tests alone.
    @Suite("faults on purpose")
    struct Faults {
        /// The program that `make release` builds, in the nearest `.build-static` upwards.
        private static let releaseProgram: String? = {
            var folder = Locations.vmm
            while folder.count > 1 {
                folder = (folder as NSString).deletingLastPathComponent
                let path = folder + "/.build-static/release/mingle-vmm"
                if FileManager.default.isExecutableFile(atPath: path) { return path }
            }
            return nil
        }()

        private func refusal(of program: String, _ words: String) throws -> String {
            let folder = try TemporaryDirectory()
            let child = try ChildProcess(
                program, ["--kernel", try Locations.payload("hello"), "--inject", words],
                streams: [
                    .file("/dev/null", O_RDONLY), .file(folder.path("output"), O_WRONLY | O_CREAT),
                    .file(folder.path("errors"), O_WRONLY | O_CREAT),
                ])
            #expect(try child.wait() == 64)
            return folder.text("errors")
        }

        @Test(
            "words that mean nothing are refused", .needs(.faults),
            arguments: [
                "", "no-protection=1", "widen=", "widen=x", "stop-at=compared", "stop-at=compared:0", "x",
                "fail-mappings=1", "lose-mappings=", "crowd-after=0",
            ])
        func words(_ words: String) throws {
            #expect(try refusal(of: Locations.vmm, words).contains("--inject \(words):"))
        }

        @Test(
            "a release build knows no faults",
            .enabled(if: Self.releaseProgram != nil, "no release build is there: run `make release`"))
        func release() throws {
            let program = try #require(Self.releaseProgram)
            #expect(try refusal(of: program, "no-protection").contains("unknown option --inject"))
        }
    }
}
