import LinuxHost
import CLinux
public import VMMProtocol

/// What a measurement depends on, for its report.
public enum HostDescription {
    /// - Parameter window: the mechanism that this user can have.
    public static func json(kernelMode: KernelModeSupport, window: SharingChoice.Window) -> [(
        key: String, value: JSONValue
    )] {
        let processor = (SystemCall.text(of: "/proc/cpuinfo") ?? "").split(separator: "\n")
            .first { $0.hasPrefix("model name") }
            .flatMap { $0.split(separator: ":", maxSplits: 1).last }
            .map { String($0.drop(while: \.isWhitespace)) }
        func line(_ path: String) -> String? {
            SystemCall.text(of: path).map { String($0.prefix { !$0.isNewline }) }
        }
        let ring0 =
            switch kernelMode {
            case .hardware: "hardware"
            case .emulated: "emulated"
            case .unknown: "unknown"
            }
        return [
            ("mingle", .string(Version.current)), ("kernel", .optional(line("/proc/sys/kernel/osrelease"))),
            ("cpu", .optional(processor)), ("cpus", .integer(Int64(HostProcessors.count))),
            ("memory_bytes", .optional(HostMemory()?.totalBytes)), ("ring0", .string(ring0)),
            ("window", .string(window.rawValue)), ("root", .boolean(geteuid() == 0)),
            ("shmem_huge_pages", .optional(line("/sys/kernel/mm/transparent_hugepage/shmem_enabled"))),
        ]
    }
}
