import CLinux
import Foundation
import Testing
import VMMProtocol

@Suite struct ExitStatusTests {
    /// Swift Testing has one of that name, too.
    private typealias ExitStatus = VMMProtocol.ExitStatus

    /// docs/exit-codes.md explains every code, and none that there is not.
    @Test func codesAreDocumented() throws {
        let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let text = try String(contentsOf: root.appending(path: "docs/exit-codes.md"), encoding: .utf8)
        let table = try #require(text.components(separatedBy: "\n## ").first)
        let codes = table.matches(of: /\n\| ([^|]+) \|/).map { String($0.1) }
        let others = ["code", "---", "0", "N", "128 + n"]
        #expect(codes.filter { !others.contains($0) } == Self.inOrder.map { "\($0.rawValue)" })
        #expect(others.allSatisfy(codes.contains))
    }

    /// Wrong usage comes last there.
    private static var inOrder: [ExitStatus] {
        ExitStatus.allCases.filter { $0 != .usage } + [.usage]
    }

    /// The signal handler of confined threads is C.
    @Test func theHandlerInCHasTheSame() {
        #expect(ExitStatus.refusedCall.code == MINGLE_REFUSED_STATUS)
        #expect(ExitStatus.afterSignal(15) == 143 && ExitStatus.afterSignal(2) == 130)
    }
}
