import GuestMemory
import Hypervisor
import LinuxHost

/// Measures what disturbing a guest costs on this host, once, when it is asked: on a thread of its own, since making a small guest
/// takes many calls that no other thread needs. The thread is there before the guest, and ends when it has measured.
///
///     waiting --asked--> measuring --> measured
///        \------------ ended -----------^
final class PriceThread: Sendable {
    private enum State {
        case waiting, asked
        /// nil: the guest counts as one of a host where disturbing it costs much.
        case over(DisturbancePrices?)
    }

    private let state = Monitor(State.waiting)
    private let ready = Monitor((isReady: false, failure: LinuxError?.none))
    private let thread: HostThread

    /// - Parameter confine: called on the thread before it waits.
    init(_ system: KVMSystem, confine: @escaping @Sendable () throws(LinuxError) -> Void) throws(LinuxError) {
        thread = try HostThread(name: "prices") { [state, ready] in
            var failure: LinuxError?
            do throws(LinuxError) { try confine() } catch { failure = error }
            ready.update { $0 = (true, failure) }
            if failure != nil { return }
            let isAsked = state.wait { state -> Bool? in
                switch state {
                case .waiting: nil
                case .asked: true
                case .over: false
                }
            }
            guard isAsked == true else { return }
            var prices: DisturbancePrices?
            do throws(HypervisorError) { prices = try DisturbanceProbe.measure(system) } catch {}
            state.update { $0 = .over(prices) }
        }
    }

    /// Waits until the thread is confined.
    func waitUntilReady() throws(LinuxError) {
        let failure: LinuxError?? = ready.wait { state -> LinuxError?? in
            state.isReady ? .some(state.failure) : nil
        }
        if let failure = failure ?? nil { throw failure }
    }

    /// Has it measure, the first time, and waits for that.
    func prices() -> DisturbancePrices? {
        state.update { state in if case .waiting = state { state = .asked } }
        return state.wait { state -> DisturbancePrices?? in
            if case .over(let prices) = state { .some(prices) } else { nil }
        } ?? nil
    }

    /// Ends the thread. Later questions are answered with nil.
    func end() {
        state.update { state in if case .waiting = state { state = .over(nil) } }
        thread.join()
    }
}
