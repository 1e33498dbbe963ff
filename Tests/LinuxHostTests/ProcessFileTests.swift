import Glibc
import Testing

@testable import LinuxHost

/// What the kernel says of processes, as text.
@Suite struct ProcessFileTests {
    @Test func tables() {
        let table = SmallFile.table("Name:\tx\nVmHWM:\t  123 kB\nanon 5\n\n7\nlast: 8")
        #expect(table == ["VmHWM": 123, "anon": 5, "last": 8])
    }

    @Test func stat() throws {
        let stat = try #require(ProcessStat("12 (a) b (c) S 1 2\n"))
        #expect(stat.name == "a) b (c" && stat.fields == ["S", "1", "2"])
        #expect(ProcessStat("") == nil && ProcessStat("1 )(") == nil)
        #expect(ProcessStat(process: getpid())?.fields.count ?? 0 > 38)
        #expect(ProcessStat(process: -1) == nil)
    }

    @Test func mappings() {
        let text = """
            1000-3000 rw-s 00003000 00:01 81234                      /memfd:a b (deleted)
            Size:                  8 kB
            Pss:                   5 kB
            Pss_Dirty:             3 kB
            VmFlags: rd wr mg 
            4000-5000 rw-p 00000000 00:00 0 
            Pss:                   1 kB
            ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
            """
        var found: [(UInt64, UInt64, Substring, UInt64?, [Substring])] = []
        MappingUse.forEach(text) { found.append(($0.start, $0.end, $0.path, $0.kibibytes("Pss"), $0.flags)) }
        #expect(found.count == 3)
        #expect(found[0] == (0x1000, 0x3000, "/memfd:a b (deleted)", 5, ["rd", "wr", "mg"]))
        #expect(found[1] == (0x4000, 0x5000, "", 1, []))
        #expect(found[2] == (0xffff_ffff_ff60_0000, 0xffff_ffff_ff60_1000, "[vsyscall]", nil, []))
    }
}
