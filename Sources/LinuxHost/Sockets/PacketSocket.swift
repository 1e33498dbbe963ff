internal import CLinux

/// A Unix packet socket: whole messages, in order, with a descriptor at times. Never blocks.
package struct PacketSocket: ~Copyable {
    package let descriptor: OwnedDescriptor

    /// Takes over a socket.
    package init(descriptor: consuming OwnedDescriptor) { self.descriptor = descriptor }

    package enum Received {
        /// A message; `passed` is a descriptor that now belongs to the receiver, or -1.
        case packet([UInt8], passed: Int32)
        case nothing
        /// The peer is gone.
        case closed
        /// Longer than allowed, or with more than one descriptor; all of it was dropped.
        case odd
    }
    package enum Sent { case done, full, broken }

    package static func connect(to path: String) throws(LinuxError) -> PacketSocket {
        let descriptor = OwnedDescriptor(adopting: try checked(mingle_packet_socket(), "socket"))
        // SAFETY: the path is a NUL-terminated copy for the time of the call.
        try checked(unsafe mingle_packet_connect(descriptor.number, path), "connect", path)
        return PacketSocket(descriptor: descriptor)
    }

    package static func listen(at path: String, backlog: Int32) throws(LinuxError) -> PacketSocket {
        let descriptor = OwnedDescriptor(adopting: try checked(mingle_packet_socket(), "socket"))
        // SAFETY: the path is a NUL-terminated copy for the time of the call.
        try checked(unsafe mingle_packet_listen(descriptor.number, path, backlog), "bind", path)
        return PacketSocket(descriptor: descriptor)
    }

    /// Two ends of one connection.
    package static func pair() throws(LinuxError) -> PacketPair {
        var (first, second): (Int32, Int32) = (-1, -1)
        // SAFETY: live locals.
        try checked(unsafe mingle_packet_pair(&first, &second), "socketpair")
        return PacketPair(
            first: PacketSocket(descriptor: OwnedDescriptor(adopting: first)),
            second: PacketSocket(descriptor: OwnedDescriptor(adopting: second)))
    }

    /// Becomes the process that listens at this socket, which another one made.
    package func listenAgain(backlog: Int32) throws(LinuxError) {
        try checked(mingle_packet_listen_again(descriptor.number, backlog), "listen")
    }

    /// The next waiting connection; EAGAIN when there is none.
    package func accept() throws(LinuxError) -> PacketSocket {
        let number = try checked(mingle_packet_accept(descriptor.number), "accept")
        return PacketSocket(descriptor: OwnedDescriptor(adopting: number))
    }

    package func send(_ bytes: [UInt8], passing passed: Int32 = -1) -> Sent {
        while true {
            // SAFETY: the array is alive for the call.
            let result = unsafe bytes.withUnsafeBytes { buffer in
                unsafe mingle_packet_send(descriptor.number, buffer.baseAddress, buffer.count, passed)
            }
            if result == Int(-EINTR) { continue }
            if result == Int(-EAGAIN) || result == Int(-ENOBUFS) { return .full }
            return result == bytes.count ? .done : .broken
        }
    }

    /// - Parameter buffer: where messages arrive; its size is the longest that is taken.
    package func receive(into buffer: inout [UInt8]) -> Received {
        // SAFETY: the pointers are alive for the call, as receive(into:by:) says.
        unsafe receive(into: &buffer) { unsafe mingle_packet_receive($0, $1, $2, $3) }
    }

    typealias Call = (Int32, UnsafeMutableRawPointer?, Int, UnsafeMutablePointer<Int32>) -> Int

    func receive(into buffer: inout [UInt8], by call: Call) -> Received {
        var passed: Int32 = -1
        var result = 0
        var wasReset = false
        repeat {
            // A peer that closed without reading all that it got: told once, before the messages that it left.
            wasReset = wasReset || result == Int(-ECONNRESET)
            // SAFETY: the array is alive for the call and as long as said; `passed` is a live local.
            result = unsafe buffer.withUnsafeMutableBytes { bytes in
                unsafe call(descriptor.number, bytes.baseAddress, bytes.count, &passed)
            }
        } while result == Int(-EINTR) || (result == Int(-ECONNRESET) && !wasReset)
        switch result {
        case 1...: return .packet(Array(buffer[..<result]), passed: passed)
        case Int(-EAGAIN): return .nothing
        case Int(-EMSGSIZE): return .odd
        default:
            if passed >= 0 { _ = OwnedDescriptor(adopting: passed) }
            return .closed
        }
    }

    /// The process and user that made the connection.
    package func peer() throws(LinuxError) -> (process: Int32, user: UInt32) {
        var process: Int32 = 0
        var user: UInt32 = 0
        // SAFETY: live locals.
        try checked(unsafe mingle_peer_credentials(descriptor.number, &process, &user), "SO_PEERCRED")
        return (process, user)
    }

    /// Waits until a message can be read, or the time is over.
    /// - Returns: false when it is over.
    package func waitForInput(until deadline: UInt64) -> Bool { wait(Int16(POLLIN), until: deadline) }
    package func waitForRoom(until deadline: UInt64) -> Bool { wait(Int16(POLLOUT), until: deadline) }

    private func wait(_ events: Int16, until deadline: UInt64) -> Bool {
        while true {
            let now = monotonicNanoseconds()
            let left = deadline > now ? (deadline - now + 999_999) / 1_000_000 : 0
            if PollList.events(of: descriptor.number, events, milliseconds: Int32(clamping: left)) != 0 {
                return true
            }
            if left == 0 { return false }
        }
    }
}

/// The two ends of a connection.
package struct PacketPair: ~Copyable {
    package let first: PacketSocket
    package let second: PacketSocket

    /// Closes the second.
    package consuming func onlyFirst() -> PacketSocket { first }
}
