internal import CLinux

/// Small files of /proc and /sys that are read again and again: each is opened once, and read into one buffer of fixed size, in
/// which numbers are found byte by byte. One thread at a time.
final class SmallFiles {
    /// nil: it is not there.
    private final class File {
        let descriptor: OwnedDescriptor
        init(_ descriptor: consuming OwnedDescriptor) { self.descriptor = descriptor }
    }
    private var files: [String: File] = [:]
    private var absent: Set<String> = []
    /// The largest, a control group's memory.stat, has some 2000 bytes.
    private var buffer = [UInt8](repeating: 0, count: 16384)
    private var used = 0

    /// Reads a file into the buffer.
    /// - Returns: false when it is not there (which is not looked at again) or cannot be read.
    func load(_ path: String) -> Bool {
        used = 0
        if absent.contains(path) { return false }
        // What was not opened before the process was confined cannot be read any more.
        if files[path] == nil, PathAccess.isOver { return false }
        do throws(LinuxError) {
            let file: File
            if let known = files[path] {
                file = known
            } else {
                file = File(try .open(path, flags: 0))
                files[path] = file
            }
            used = try OwnedDescriptor.readBytes(of: file.descriptor.number, into: &buffer, at: 0)
            return true
        } catch {
            // Its control group is gone, or never had such a file.
            if !PathAccess.isOver { files[path] = nil }
            if error.code == 2 { absent.insert(path) }
            return false
        }
    }

    /// The number with which a file begins.
    func number(in path: String) -> UInt64? { load(path) ? number(at: 0) : nil }

    /// Of the file that was loaded last: the number behind a name and a blank or colon, at the start of a line.
    func value(_ name: String) -> UInt64? {
        var line = 0
        while line < used {
            var position = line
            for byte in name.utf8 {
                guard position < used, buffer[position] == byte else {
                    position = -1
                    break
                }
                position += 1
            }
            if position >= 0, position < used,
                buffer[position] == UInt8(ascii: " ") || buffer[position] == UInt8(ascii: ":")
            {
                while position < used,
                    buffer[position] == UInt8(ascii: " ") || buffer[position] == UInt8(ascii: ":")
                {
                    position += 1
                }
                return number(at: position)
            }
            while line < used, buffer[line] != UInt8(ascii: "\n") { line += 1 }
            line += 1
        }
        return nil
    }

    /// The text of the file that was loaded last.
    var text: String { String(decoding: buffer[..<used], as: UTF8.self) }

    private func number(at start: Int) -> UInt64? {
        var position = start
        var value: UInt64?
        while position < used, buffer[position] >= UInt8(ascii: "0"), buffer[position] <= UInt8(ascii: "9") {
            let (product, isTooLarge) = (value ?? 0).multipliedReportingOverflow(by: 10)
            let (sum, carries) = product.addingReportingOverflow(UInt64(buffer[position] - UInt8(ascii: "0")))
            if isTooLarge || carries { return nil }
            value = sum
            position += 1
        }
        return value
    }
}

/// Reads all bounds of memory again and again, through files that are opened at the first look. One thread at a time.
public final class MemoryBoundReader {
    private let root: String
    private let files = SmallFiles()
    private var membership: ControlGroupMembership
    private var folders: [(group: String, folder: String)]

    /// - Parameter root: a folder in front of /proc and /sys, for tests.
    public init(root: String = "") {
        self.root = root
        membership = ControlGroupMembership(root: root)
        folders = membership.chargedFolders(root: root)
    }

    /// As ``MemoryBound/all(root:)``.
    public func all() -> [MemoryBound] {
        // Whoever manages groups may have moved this process; what cannot be opened then says nothing. A confined process is judged
        // by the group that it was in.
        if !PathAccess.isOver, files.load(root + "/proc/self/cgroup") {
            let now = ControlGroupMembership(text: files.text)
            if now != membership {
                membership = now
                folders = now.chargedFolders(root: root)
            }
        }
        guard files.load(root + "/proc/meminfo"), let total = files.value("MemTotal"),
            let available = files.value("MemAvailable")
        else { return [] }
        let host = MemoryBound(
            totalBytes: total << 10, availableBytes: available << 10,
            swapFreeBytes: (files.value("SwapFree") ?? 0) << 10)
        let isFirst = membership.memory != nil
        return [host]
            + folders.compactMap { group, folder in
                isFirst
                    ? MemoryBound.versionOne(group, folder, host: host, files)
                    : MemoryBound.versionTwo(group, folder, host: host, files)
            }
    }
}
