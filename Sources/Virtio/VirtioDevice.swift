package import GuestMemory

/// What a device of one kind is to its transport. Called by the transport, one call at a time, on vCPU threads and on that of the
/// event loop: never blocks.
package protocol VirtioDevice: AnyObject, Sendable {
    /// Device ID (virtio 1.2, 5).
    var kind: VirtioKind { get }
    /// What the device offers beside what every queue can do; bits 0 to 23 and above 41 are the kind's own (2.2).
    var features: UInt64 { get }
    /// For each queue, the most descriptors that it may have.
    var queueSizes: [UInt16] { get }
    /// The kind's configuration (2.5), in bytes.
    var configuration: [UInt8] { get }
    /// The driver wrote into the configuration; most kinds have nothing to write.
    func writeConfiguration(offset: Int, bytes: [UInt8])
    /// The driver put something into a queue, or has just been set up. Serves what is there, as many chains as the queue is long at
    /// most: the driver may be adding to it all the time.
    /// - Throws: when the driver broke a rule: the device needs a reset then.
    func serve(queue index: Int, _ queue: inout VirtQueue, _ memory: GuestMemory) throws(QueueError)
    /// The driver starts anew: nothing of it is known any more.
    func reset()
}

extension VirtioDevice {
    package var configuration: [UInt8] { [] }
    package func writeConfiguration(offset: Int, bytes: [UInt8]) {}
    package func reset() {}
}

/// Device IDs (virtio 1.2, 5).
package enum VirtioKind: UInt32, Sendable {
    case entropy = 4
}
