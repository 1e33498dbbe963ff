internal import CLinux
internal import Synchronization

/// This process's threads as the kernel sees them, for people: through files of /proc that each thread opened itself.
package enum OwnThreads {
    private final class Entry: Sendable {
        let name: String
        /// Its state and CPU time.
        let state: OwnedDescriptor
        /// What it waits for in the kernel.
        let place: OwnedDescriptor

        init(_ name: String) throws(LinuxError) {
            self.name = name
            state = try .open("/proc/thread-self/stat", flags: 0)
            place = try .open("/proc/thread-self/wchan", flags: 0)
        }
    }
    private static let entries = Mutex<[Entry]>([])

    /// The calling thread is to be described, under this name. Where it cannot be, it is left out.
    package static func enlist(_ name: String) {
        do throws(LinuxError) {
            let entry = try Entry(name)
            entries.withLock { $0.append(entry) }
        } catch { return }
    }

    /// A line for each that lives: name, state, what it waits for in the kernel, its CPU time.
    package static func describe() -> String {
        entries.withLock { $0 }.compactMap { entry in
            // Behind the name, which may hold anything: the state; the times are fields 14 and 15 of the line, in hundredths.
            let line = ProcessStat(text(entry.state))?.fields ?? []
            guard line.count > 12, let user = UInt64(line[11]), let system = UInt64(line[12]) else {
                return nil
            }
            let place = text(entry.place)
            return
                "  thread \(entry.name): \(line[0]) in \(place.isEmpty ? "?" : place), ran \((user + system) * 10) ms"
        }.joined(separator: "\n")
    }

    private static func text(_ file: borrowing OwnedDescriptor) -> String {
        String(decoding: (try? file.read(count: 1024, at: 0)) ?? [], as: UTF8.self)
    }
}
