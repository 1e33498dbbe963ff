internal import CLinux
internal import Glibc

/// A lock with a condition: state that threads change under the lock and wait for.
///
/// Plain threads use it (vCPUs, the console); nothing asynchronous may wait here. Timeouts run on the monotonic clock.
@safe
public final class Monitor<State>: @unchecked Sendable {
    @unsafe private let mutex: UnsafeMutablePointer<pthread_mutex_t>
    @unsafe private let condition: UnsafeMutablePointer<pthread_cond_t>
    private var state: State

    public init(_ state: sending State) {
        self.state = state
        unsafe mutex = .allocate(capacity: 1)
        unsafe condition = .allocate(capacity: 1)
        // SAFETY: both are freshly allocated, stay where they are for the life of this object, and are set up once.
        unsafe mutex.initialize(to: pthread_mutex_t())
        unsafe condition.initialize(to: pthread_cond_t())
        var attributes = pthread_condattr_t()
        unsafe pthread_condattr_init(&attributes)
        unsafe pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
        unsafe pthread_mutex_init(mutex, nil)
        unsafe pthread_cond_init(condition, &attributes)
        unsafe pthread_condattr_destroy(&attributes)
    }

    /// Runs `body` with the lock held.
    public func withLock<Result, Failure: Error>(
        _ body: (inout State) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        // SAFETY: initialised in init, destroyed in deinit, when no caller can be here.
        unsafe pthread_mutex_lock(mutex)
        defer { unsafe pthread_mutex_unlock(mutex) }
        return try body(&state)
    }

    /// Runs `body` with the lock held and wakes every waiter.
    public func update<Result>(_ body: (inout State) -> Result) -> Result {
        withLock { state in
            let result = body(&state)
            // SAFETY: as in withLock.
            unsafe pthread_cond_broadcast(condition)
            return result
        }
    }

    /// Wakes every waiter; for a body of ``wait(until:_:)`` that changed the state.
    public func wakeAll() {
        // SAFETY: initialised in init; a broadcast needs no lock.
        unsafe pthread_cond_broadcast(condition)
    }

    /// Waits until `body` gives a value, looking again after every ``update(_:)``; `body` runs with the lock held.
    /// - Parameter deadline: nanoseconds of the monotonic clock; nil waits for ever.
    /// - Returns: nil when the deadline passed first.
    public func wait<Result>(until deadline: UInt64? = nil, _ body: (inout State) -> Result?) -> Result? {
        // SAFETY: as in withLock.
        unsafe pthread_mutex_lock(mutex)
        defer { unsafe pthread_mutex_unlock(mutex) }
        while true {
            // Each look is an access of its own: others change the state during the wait, which one access that spans
            // it would let the compiler rule out.
            if let result = body(&state) { return result }
            guard let deadline else {
                // SAFETY: the lock is held by this thread.
                unsafe pthread_cond_wait(condition, mutex)
                continue
            }
            var time = timespec(
                tv_sec: Int(deadline / 1_000_000_000), tv_nsec: Int(deadline % 1_000_000_000))
            // SAFETY: the lock is held by this thread; `time` is a live local.
            if unsafe pthread_cond_timedwait(condition, mutex, &time) == ETIMEDOUT { return body(&state) }
        }
    }

    deinit {
        // SAFETY: nobody else refers to this object any more, so nobody holds the lock or waits.
        unsafe pthread_cond_destroy(condition)
        unsafe pthread_mutex_destroy(mutex)
        unsafe condition.deallocate()
        unsafe mutex.deallocate()
    }
}
