import Testing

@testable import GuestImages

/// A reader of its own for what the writer makes.
struct CPIOEntry: Equatable {
    var name: String
    var mode: UInt32
    var inode: UInt32
    var data: [UInt8]
    var device: [UInt32]

    static func read(_ bytes: [UInt8]) throws -> [CPIOEntry] {
        var (entries, at): ([CPIOEntry], Int) = ([], 0)
        while true {
            try #require(Array("070701".utf8) == Array(bytes[at..<at + 6]))
            let fields = try (0..<13).map { index in
                let start = at + 6 + 8 * index
                return try #require(
                    UInt32(String(decoding: bytes[start..<start + 8], as: UTF8.self), radix: 16))
            }
            let name = String(decoding: bytes[at + 110..<at + 110 + Int(fields[11]) - 1], as: UTF8.self)
            try #require(bytes[at + 110 + Int(fields[11]) - 1] == 0)
            let dataStart = (at + 110 + Int(fields[11]) + 3) & ~3
            let dataEnd = dataStart + Int(fields[6])
            #expect(fields[5] == 0, "times are 0")
            if name == "TRAILER!!!" {
                #expect(bytes[dataEnd...].allSatisfy { $0 == 0 })
                return entries
            }
            entries.append(
                CPIOEntry(
                    name: name, mode: fields[1], inode: fields[0], data: Array(bytes[dataStart..<dataEnd]),
                    device: [fields[9], fields[10]]))
            at = (dataEnd + 3) & ~3
        }
    }
}

@Suite struct CPIOArchiveTests {
    @Test func holdsEveryKindOfEntry() throws {
        var archive = CPIOArchive()
        try archive.add("init", .file(Array("#!/bin/sh".utf8)), permissions: 0o755)
        try archive.add("a/b/link", .symbolicLink("../x"))
        try archive.add("dev/console", .characterDevice(major: 5, minor: 1))
        try archive.add("dev/disk", .blockDevice(major: 254, minor: 16))
        try archive.add("a", .directory, permissions: 0o1777)
        let bytes = archive.serialized()
        #expect(bytes.count % CPIOArchive.blockSize == 0)
        let entries = try CPIOEntry.read(bytes)
        #expect(entries.map(\.name) == ["a", "a/b", "a/b/link", "dev", "dev/console", "dev/disk", "init"])
        #expect(
            entries.map(\.mode) == [0o041777, 0o040755, 0o120777, 0o040755, 0o020600, 0o060600, 0o100755])
        #expect(entries.map(\.inode) == [1, 2, 3, 4, 5, 6, 7])
        #expect(entries[2].data == Array("../x".utf8))
        #expect(entries[4].device == [5, 1] && entries[5].device == [254, 16])
        #expect(entries[6].data == Array("#!/bin/sh".utf8))
    }

    @Test func orderOfAddingDoesNotMatter() throws {
        let names = (0..<50).map { "d\($0 % 7)/f\($0)" }
        func make(_ names: [String]) throws -> [UInt8] {
            var archive = CPIOArchive()
            for name in names { try archive.add(name, .file(Array(name.utf8))) }
            return archive.serialized()
        }
        let first = try make(names)
        for _ in 0..<5 { #expect(try make(names.shuffled()) == first) }
    }

    @Test(arguments: ["", "/a", "a//b", "a/", "../a", "a/../b", ".", "a\0b", "TRAILER!!!"])
    func refusesPath(_ path: String) {
        var archive = CPIOArchive()
        #expect(failure { () throws(GuestImagesError) in try archive.add(path, .directory) } != nil)
    }

    @Test func refusesWhatContradictsItself() throws {
        var archive = CPIOArchive()
        try archive.add("a", .file([1]))
        #expect(failure { () throws(GuestImagesError) in try archive.add("a", .file([2])) } != nil)
        #expect(failure { () throws(GuestImagesError) in try archive.add("a/b", .file([2])) } != nil)
        #expect(failure { () throws(GuestImagesError) in try archive.add("l", .symbolicLink("")) } != nil)
        #expect(
            failure { () throws(GuestImagesError) in try archive.add("p", .directory, permissions: 0o10000) }
                != nil)
        #expect(try CPIOEntry.read(archive.serialized()).map(\.name) == ["a"])
    }
}
