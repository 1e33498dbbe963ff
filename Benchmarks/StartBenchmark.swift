/// From the spawn of `mingle` to the guest's first instruction, and where the time goes.
enum StartBenchmark {
    static func run(_ programs: Programs, rounds: Int, kernel: String) throws {
        var all: [Guest.Times] = []
        for round in 0...rounds {
            let isPayload = kernel.hasPrefix("payload:")
            let words = ["--kernel", kernel] + (isPayload ? [] : ["--cmdline", "mingle.hold"])
            let guest = try Guest(
                programs, name: "start\(round)", words + ["--timeout", isPayload ? "60" : "2"])
            let times = try guest.finish().times
            // The first one fills the page cache.
            if round > 0 { all.append(times) }
        }
        var table = Table("\(kernel), median of \(rounds)", "time", "worst")
        func add(_ name: String, _ part: (Guest.Times) -> Double) {
            let values = all.map(part)
            table.add(name, milliseconds(median(values)), milliseconds(values.max() ?? 0))
        }
        add("mingle: options, images, checks, exec") { $0.vmm }
        add("mingle-vmm: KVM, memory, kernel, tables, vCPUs") { $0.built - $0.vmm }
        add("threads, first entry") { $0.entered - $0.built }
        add("together: spawn to first instruction") { $0.entered }
        table.show()
    }
}
