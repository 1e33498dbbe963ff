package import GuestMemory
internal import LinuxHost

/// The entropy device (virtio 1.2, 5.4): fills what the driver hands over with the host's random bytes.
package final class EntropyDevice: VirtioDevice {
    /// Bytes that one buffer gets at most; Linux asks for 64, and for a page at once at the start. A driver that asks for more gets less,
    /// as it may, so that one request cannot keep the event loop.
    package static let limit = 4096

    package let kind = VirtioKind.entropy
    package let features: UInt64 = 0
    package let queueSizes: [UInt16] = [64]

    package init() {}

    package func serve(queue index: Int, _ queue: inout VirtQueue, _ memory: GuestMemory)
        throws(QueueError)
    {
        for _ in 0..<queue.size {
            guard let chain = try queue.pop() else { return }
            let count = Int(min(chain.writableBytes, UInt64(Self.limit)))
            var written = 0
            // All of it is RAM: the queue has looked.
            if count > 0, let bytes = try? randomBytes(count),
                let transfer = try? memory.beginTransfer(to: chain.writable.prefix(bytes: count))
            {
                transfer.write(bytes, at: 0)
                written = count
            }
            try queue.push(chain.head, written: UInt32(written))
        }
    }
}

extension Collection where Element == GuestRange {
    /// The ranges that hold the first bytes of all.
    package func prefix(bytes: Int) -> [GuestRange] {
        var left = UInt64(bytes)
        var found: [GuestRange] = []
        for range in self where left > 0 {
            let size = Swift.min(left, range.sizeInBytes)
            if let part = GuestRange(start: range.start, sizeInBytes: size) { found.append(part) }
            left -= size
        }
        return found
    }
}
