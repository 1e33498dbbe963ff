/// Idle Linux guests, with the stock Debian kernel if no other is named.
struct SharingLinux {
    let programs: Programs
    let options: SharingOptions

    private func run(_ more: [String]) -> DensityRun {
        DensityRun(
            programs: programs, guests: 4, memory: 128, image: options.image, seconds: options.linuxSeconds,
            options: more + options.sharing)
    }

    /// Merged from the moment when all are up, for times that can be compared.
    func idle() throws -> [Finding] {
        let run = run(["--share-when-up"])
        let result = StillGuests(
            name: "4 idle Linux guests", off: try run.result(.off), own: [try run.result(.builtin)],
            kernel: [try run.result(.ksm)])
        return [
            result.saving(goal: 0.95), result.time(atMost: 1), result.cpu(atMost: 1),
            result.steady(gibibytes: 0.5, guests: 4),
            result.metadata(bareBroker: try SharingContents.bareBroker(programs)),
        ]
    }

    /// MiB: the small kernel of guests/kernel keeps far less memory than Debian's.
    private var limit: Int { options.image == "linux" ? 120 : 60 }

    /// Merged from their start, as they are when nobody measures.
    func withData() throws -> [Finding] {
        let run = run(["--data", "common=8M,unique=4M"])
        let off = try run.result(.off)
        let own = try run.result(.builtin)
        let kernel = try run.result(.ksm)
        var used = Finding(
            figure:
                "memory of the host used by 4 Linux guests of 128 MiB with 8 MiB alike and 4 MiB of their own",
            goal: "under \(limit) MiB")
        func value(_ result: DensityResult) throws -> Double {
            guard let bytes = result.memory.host_used_bytes else {
                throw Failure("/proc/meminfo cannot be read")
            }
            return bytes
        }
        (used.builtin, used.ksm, used.off) = (
            mebibytes(try value(own)), mebibytes(try value(kernel)), mebibytes(try value(off))
        )
        used.values = ["builtin": [try value(own)], "ksm": [try value(kernel)], "off": [try value(off)]]
        used.isReached = try value(own) < Double(limit) * 1_048_576
        let ideal = try value(off) - own.memory.ideal_saved_bytes
        used.remark = "ideal " + mebibytes(ideal)
        let guests = StillGuests(name: "the same", off: off, own: [own], kernel: [kernel])
        return [used, guests.saving(goal: 0.95)]
    }
}
