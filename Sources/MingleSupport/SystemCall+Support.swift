internal import CLinux
package import LinuxHost

extension SystemCall {
    /// All bytes of a regular file of at most `limit` bytes.
    package static func contents(of path: String, limit: Int = 1 << 30) throws(SupportError) -> [UInt8] {
        let size = try RunChecks.readableFile(path, what: "the file")
        guard size <= UInt64(limit) else {
            throw .unusableImage(
                path: path, reason: "larger than the \(ByteSize.format(UInt64(limit))) that are read")
        }
        let result = open(path, flags: O_RDONLY).flatMap { number in
            let descriptor = OwnedDescriptor(adopting: number)
            return read(descriptor.number, count: Int(size), at: 0)
        }
        switch result {
        case .success(let bytes): return bytes
        case .failure(let error): throw .systemCall(operation: "read", subject: path, code: error.code)
        }
    }

    /// What a symbolic link points at.
    package static func linkTarget(_ path: String) throws(SupportError) -> String {
        switch readLink(path) {
        case .success(let target): return target
        case .failure(let error): throw .systemCall(operation: "follow", subject: path, code: error.code)
        }
    }

    /// Adds a line to a file: what it holds already stays, even when there is no space.
    package static func append(_ path: String, line: String) throws(SupportError) {
        let result = open(path, flags: O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW, mode: 0o600)
            .flatMap { number in
                let descriptor = OwnedDescriptor(adopting: number)
                return write(descriptor.number, line + "\n")
            }
        if case .failure(let error) = result {
            throw .systemCall(operation: "write", subject: path, code: error.code)
        }
    }

    /// Writes a file anew.
    package static func replace(_ path: String, with text: String) throws(SupportError) {
        let flags = O_WRONLY | O_CREAT | O_TRUNC
        let result = open(path, flags: flags, mode: 0o644).flatMap { number in
            let descriptor = OwnedDescriptor(adopting: number)
            return write(descriptor.number, text)
        }
        if case .failure(let error) = result {
            throw .systemCall(operation: "write", subject: path, code: error.code)
        }
    }
}
