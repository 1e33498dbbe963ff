import GuestImages
import MingleSupport

struct ImageProvider {
    let console: Console
    func debianKernel(_ format: KernelFormat) throws(SupportError) -> (String, String) {
        throw .requirement(problem: "no images", advice: "x")
    }
    func payload(_ name: String) throws(SupportError) -> String {
        throw .requirement(problem: "no images", advice: "x")
    }
    func initramfs() throws(SupportError) -> String { throw .requirement(problem: "no images", advice: "x") }
    func commandOverlay(_ words: [String]) throws(SupportError) -> [UInt8] {
        Array(words.joined(separator: "\0").utf8)
    }
}
