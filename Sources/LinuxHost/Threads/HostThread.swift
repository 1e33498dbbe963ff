internal import CLinux

/// A plain named thread. vCPUs and workers that block are such threads; Swift concurrency is for the control plane.
@safe
public final class HostThread: @unchecked Sendable {
    @unsafe private let handle: pthread_t
    private let body: Body

    private final class Body: Sendable {
        /// True when the thread is about to end: from then on its handle may go at any time.
        let finished = Monitor(false)
        private let work: @Sendable () -> Void
        init(_ work: @escaping @Sendable () -> Void) { self.work = work }
        func run() {
            work()
            finished.update { $0 = true }
        }
    }

    /// The signal that interrupts a blocking system call of a thread started with `interruptible`.
    public static var kickSignal: Int32 { mingle_sigrtmin() }

    /// Starts a thread.
    /// - Parameters:
    ///   - name: up to 15 bytes, shown by ps and debuggers.
    ///   - interruptible: whether ``kick()`` ends its blocking calls with EINTR; all other signals are blocked.
    public init(
        name: String, stackSizeInBytes: Int = 256 << 10, interruptible: Bool = false,
        _ run: @escaping @Sendable () -> Void
    ) throws(LinuxError) {
        let signal = interruptible ? Self.kickSignal : 0
        if interruptible { try checked(mingle_install_kick_handler(signal), "sigaction") }
        // SAFETY: the reference made here is consumed exactly once: by the new thread, or below when there is none.
        let body = Body(run)
        let context = unsafe Unmanaged.passRetained(body).toOpaque()
        var handle = pthread_t()
        let result = unsafe mingle_thread_create(
            &handle, name, stackSizeInBytes, signal,
            { context in
                guard let context = unsafe context else { return nil }
                unsafe Unmanaged<Body>.fromOpaque(context).takeRetainedValue().run()
                return nil
            }, context)
        if result < 0 { unsafe Unmanaged<Body>.fromOpaque(context).release() }
        try checked(result, "pthread_create", name)
        unsafe self.handle = handle
        self.body = body
    }

    /// Interrupts the thread's blocking system call; harmless when it is in none or has ended.
    public func kick() {
        body.finished.withLock { finished in
            // SAFETY: the thread cannot end before it sets the flag under this lock, so the handle is valid.
            if !finished { unsafe pthread_kill(handle, Self.kickSignal) }
        }
    }

    /// Waits for the thread's end; the owner calls it, once.
    public func join() {
        // SAFETY: the handle is joined once only, by the owner.
        unsafe pthread_join(handle, nil)
    }
}
