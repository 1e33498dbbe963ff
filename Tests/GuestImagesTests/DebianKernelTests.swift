import FoundationEssentials
import Testing

@testable import GuestImages

@Suite struct DebianKernelTests {
    private static let version = "6.1.0-99-cloud-amd64"

    /// A made-up machine with a kernel in /boot and its modules, some of them packed.
    private func makeSystem(at root: String, version: String = version) throws {
        try FileSystem.makeDirectory("\(root)/boot")
        try FileSystem.write(Samples.bzImage(Samples.vmlinux(), .lz4), to: "\(root)/boot/vmlinuz-\(version)")
        try FileSystem.write(Array("CONFIG_PVH=y\n".utf8), to: "\(root)/boot/config-\(version)")
        let folder = "\(root)/lib/modules/\(version)/kernel"
        let modules: [(String, String, Compression?)] = [
            ("drivers/button.ko", "", nil), ("drivers/evdev.ko.xz", "", .xz),
            ("drivers/misc/pvpanic.ko.zst", "", .zstd), ("drivers/misc/pvpanic-mmio.ko", "pvpanic", nil),
            ("virt/irqbypass.ko.gz", "", .gzip), ("kvm/kvm.ko", "irqbypass", nil),
            ("kvm/kvm-amd.ko", "kvm,ccp", nil),
            ("crypto/ccp.ko", "", nil), ("virtio.ko", "virtio_ring", nil), ("virtio_ring.ko", "", nil),
            ("virtio_mmio.ko", "virtio,virtio_ring", nil), ("virtio_blk.ko", "virtio", nil),
            ("char/hw_random/rng-core.ko", "", nil),
            ("char/hw_random/virtio-rng.ko", "rng-core,virtio", nil),
        ]
        for (path, depends, compression) in modules {
            let bytes = Samples.module(depends: depends)
            let directory = "\(folder)/\(path)".split(separator: "/").dropLast().joined(separator: "/")
            try FileSystem.makeDirectory("/\(directory)")
            try FileSystem.write(
                compression.map { Samples.pack(bytes, $0) } ?? bytes, to: "\(folder)/\(path)")
        }
    }

    @Test func copiesTheSystemsKernelOnce() throws {
        try withTemporaryDirectory { root in
            try makeSystem(at: "\(root)/system")
            let cache = ImageCache(directory: "\(root)/cache")
            #expect(DebianKernel.cached(in: cache) == nil)
            let kernel = try DebianKernel.locate(in: cache, systemRoot: "\(root)/system")
            #expect(kernel.version == Self.version)
            #expect(try FileSystem.read(kernel.vmlinux) == Samples.vmlinux())
            #expect(FileSystem.isReadable(kernel.vmlinuz) && FileSystem.isReadable(kernel.configuration))
            let names = try kernel.modules().map { $0.split(separator: "/").last.map(String.init) }
            #expect(
                names == [
                    "button.ko", "evdev.ko", "pvpanic.ko", "pvpanic_mmio.ko", "virtio_ring.ko", "virtio.ko",
                    "virtio_mmio.ko", "rng_core.ko", "virtio_rng.ko",
                ])
            let lab = try kernel.modules(["kvm-amd"]).map { $0.split(separator: "/").last.map(String.init) }
            #expect(lab == ["irqbypass.ko", "kvm.ko", "ccp.ko", "kvm_amd.ko"])
            #expect(
                try FileSystem.read("\(kernel.directory)/modules/evdev.ko") == Samples.module(depends: ""))
            try kernel.verify()
            try FileSystem.remove("\(root)/system")
            #expect(
                try DebianKernel.locate(in: cache, systemRoot: "\(root)/system").manifest == kernel.manifest)
            #expect(FileSystem.names(in: "\(root)/cache") == ["kernels", "kernels.lock"])
        }
    }

    /// What an older version of this program kept, which wanted fewer modules.
    @Test func aKernelThatLacksAModuleIsCopiedAnew() throws {
        try withTemporaryDirectory { root in
            try makeSystem(at: "\(root)/system")
            let cache = ImageCache(directory: "\(root)/cache")
            let kernel = try DebianKernel.locate(in: cache, systemRoot: "\(root)/system")
            let manifest = "\(kernel.directory)/manifest.json"
            let text = String(decoding: try FileSystem.read(manifest), as: UTF8.self)
            let old = try JSONDecoder().decode(DebianKernel.Manifest.self, from: Data(text.utf8))
            let fewer = DebianKernel.Manifest(
                version: old.version, source: old.source,
                files: old.files.filter { !$0.name.hasSuffix("virtio_rng.ko") })
            #expect(fewer.files.count == old.files.count - 1)
            try FileSystem.write(Array(try JSONEncoder().encode(fewer)), to: manifest)
            #expect(DebianKernel.cached(in: cache) == nil)
            #expect(
                try DebianKernel.locate(in: cache, systemRoot: "\(root)/system").modules().last?.hasSuffix(
                    "virtio_rng.ko") == true)
        }
    }

    @Test func changesAreNoticed() throws {
        try withTemporaryDirectory { root in
            try makeSystem(at: "\(root)/system")
            let cache = ImageCache(directory: "\(root)/cache")
            let kernel = try DebianKernel.locate(in: cache, systemRoot: "\(root)/system")
            // A byte flipped behind the manifest's back, with size and time restored.
            var bytes = try FileSystem.read(kernel.vmlinux)
            bytes[bytes.count / 2] ^= 1
            let attributes = try FileManager.default.attributesOfItem(atPath: kernel.vmlinux)
            try Data(bytes).write(to: URL(filePath: kernel.vmlinux))
            try FileManager.default.setAttributes(
                [.modificationDate: try #require(attributes[.modificationDate])], ofItemAtPath: kernel.vmlinux
            )
            let error = failure { () throws(GuestImagesError) in try kernel.verify() }
            guard case .checksumMismatch(let path, _, _) = error else {
                Issue.record("\(String(describing: error))")
                return
            }
            #expect(path == kernel.vmlinux)
            try FileSystem.write(bytes + [0], to: kernel.vmlinux)
            #expect(
                failure { () throws(GuestImagesError) in try DebianKernel(directory: kernel.directory) }?
                    .description.contains("vmlinux was changed") == true)
            #expect(DebianKernel.cached(in: cache) == nil, "a damaged kernel is not used")
            let again = try DebianKernel.locate(in: cache, systemRoot: "\(root)/system")
            #expect(try FileSystem.read(again.vmlinux) == Samples.vmlinux(), "but made anew")
            try FileSystem.remove("\(again.directory)/modules/button.ko")
            #expect(
                failure { () throws(GuestImagesError) in try DebianKernel(directory: again.directory) }?
                    .description.contains("button.ko is missing") == true)
        }
    }

    @Test func newestComesFirst() {
        let versions = [
            "6.1.0-9-cloud-amd64", "6.12.1-cloud-amd64", "6.1.0-56-cloud-amd64", "5.10.0-40-cloud-amd64",
        ]
        #expect(
            DebianKernel.newestFirst(versions) == [
                "6.12.1-cloud-amd64", "6.1.0-56-cloud-amd64", "6.1.0-9-cloud-amd64", "5.10.0-40-cloud-amd64",
            ])
    }

    @Test func moduleTroubleIsNamed() throws {
        try withTemporaryDirectory { root in
            for (name, depends) in [("a", "b"), ("b", "c"), ("c", "a"), ("d", "nowhere")] {
                try FileSystem.write(Samples.module(depends: depends), to: "\(root)/\(name).ko")
            }
            let modules = KernelModules(directory: root)
            #expect(
                failure { () throws(GuestImagesError) in try modules.loadOrder(of: ["a"]) }
                    == .circularModules(name: "a"))
            #expect(
                failure { () throws(GuestImagesError) in try modules.loadOrder(of: ["d"]) }
                    == .noModule(name: "nowhere", directory: root))
        }
    }

    /// Scripts in the place of apt and dpkg: `package` is what is "downloaded", `digest` what the index tells of it,
    /// and `root` what comes out of it.
    private func makeTools(at directory: String, digest: String, root: String) throws {
        try FileSystem.makeDirectory(directory)
        let scripts = [
            "apt-cache": """
            case $1 in
            depends) echo linux-image-cloud-amd64; echo "  Depends: linux-base"
                echo "  Depends: linux-image-\(Self.version)" ;;
            show) echo "Package: $3"; echo "Version: 6.1.99-1"; echo "SHA256: \(digest)" ;;
            esac
            """,
            "apt-get": "[ $3 = linux-image-\(Self.version)=6.1.99-1 ] && printf package > $3.deb",
            "dpkg-deb": "[ \"$(cat $2)\" = package ] && cp -r \(root)/. $3/",
        ]
        for (name, text) in scripts {
            try FileSystem.write(
                Array("#!/bin/sh\n\(text)\n".utf8), to: "\(directory)/\(name)", permissions: 0o755)
        }
    }

    @Test func aFullDiskIsSaidInTheToolsWords() throws {
        try withTemporaryDirectory { root in
            try makeTools(at: "\(root)/tools", digest: "0", root: root)
            let words = "E: Write error - write (28: No space left on device)"
            try FileSystem.write(
                Array("#!/bin/sh\necho '\(words)' >&2\nexit 100\n".utf8), to: "\(root)/tools/apt-get",
                permissions: 0o755)
            let cache = ImageCache(directory: "\(root)/cache")
            let error = failure { () throws(GuestImagesError) in
                try DebianKernel.locate(in: cache, systemRoot: root, searchPath: "\(root)/tools")
            }
            guard case .noRoom(cache.directory, let reason) = error else {
                Issue.record("\(String(describing: error))")
                return
            }
            #expect(reason.contains(words) && reason.contains("apt-get"))
            #expect(error?.description.contains("apt-get update") == false)
            #expect(FileSystem.names(in: cache.directory) == ["kernels.lock"])
        }
    }

    @Test func fetchesAPackage() throws {
        try withTemporaryDirectory { root in
            try makeSystem(at: "\(root)/content")
            let digest = SHA256.hexadecimalDigest(of: Array("package".utf8))
            try makeTools(at: "\(root)/tools", digest: digest, root: "\(root)/content")
            let cache = ImageCache(directory: "\(root)/cache")
            var told: [String] = []
            let kernel = try DebianKernel.locate(in: cache, systemRoot: root, searchPath: "\(root)/tools") {
                told.append($0)
            }
            #expect(told == ["downloading linux-image-\(Self.version) 6.1.99-1"])
            #expect(kernel.version == Self.version)
            #expect(kernel.manifest.source == "linux-image-\(Self.version) 6.1.99-1")
            #expect(try FileSystem.read(kernel.vmlinux) == Samples.vmlinux())
            #expect(FileSystem.names(in: "\(root)/cache") == ["kernels", "kernels.lock"])
        }
    }

    @Test func aPackageWithAnotherDigestIsRefused() throws {
        try withTemporaryDirectory { root in
            try makeSystem(at: "\(root)/content")
            try makeTools(at: "\(root)/tools", digest: "0123", root: "\(root)/content")
            let cache = ImageCache(directory: "\(root)/cache")
            let error = failure { () throws(GuestImagesError) in
                try DebianKernel.locate(in: cache, systemRoot: root, searchPath: "\(root)/tools")
            }
            guard case .checksumMismatch(_, expected: "0123", _) = error else {
                Issue.record("\(String(describing: error))")
                return
            }
            #expect(FileSystem.names(in: "\(root)/cache") == ["kernels.lock"], "nothing of it stays")
        }
    }

    @Test func withoutAptTheWaysOutAreTold() throws {
        try withTemporaryDirectory { root in
            let cache = ImageCache(directory: "\(root)/cache")
            let error = failure { () throws(GuestImagesError) in
                try DebianKernel.locate(in: cache, systemRoot: root, searchPath: root)
            }
            guard case .noKernel = error else {
                Issue.record("\(String(describing: error))")
                return
            }
            let text = error?.description ?? ""
            for word in ["apt-cache", "not installed", "--kernel FILE", "/boot/vmlinuz-*-cloud-amd64"] {
                #expect(text.contains(word), "\(word) in: \(text)")
            }
        }
    }

    /// The real thing: fetches the package with apt, unpacks, checks. About 27 MB from the Debian mirror.
    @Test(
        .enabled(
            if: ProcessInfo.processInfo.environment["MINGLE_TEST_DOWNLOADS"] == "1",
            "set MINGLE_TEST_DOWNLOADS=1 to fetch packages from a Debian mirror"))
    func fetchesTheRealKernel() throws {
        try withTemporaryDirectory { root in
            let cache = ImageCache(directory: "\(root)/cache")
            let kernel = try DebianKernel.locate(in: cache, systemRoot: "\(root)/empty")
            try kernel.verify()
            let vmlinux = try FileSystem.read(kernel.vmlinux)
            #expect(vmlinux.count > 40_000_000)
            try BzImage.checkVmlinux(vmlinux)
            #expect(try kernel.modules().count == 3 + 1)
            #expect(try kernel.modules(["kvm-amd"]).count == 3)
            let busybox = try Busybox.locate(in: cache, systemPaths: [])
            #expect(busybox.path == cache.path("busybox/busybox"))
        }
    }
}
