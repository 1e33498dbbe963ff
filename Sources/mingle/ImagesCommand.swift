import ArgumentParser
import MingleSupport
import VMMProtocol

/// `mingle images`: the kernels, RAM disks and payloads that guests are made of.
struct ImagesCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "images",
        abstract: "Fetch, build, find, check and remove what guests are made of.",
        discussion: """
            EXAMPLES
              mingle images build
              mingle images list
              cp "$(mingle images path vmlinux)" .
              mingle images verify && mingle images clean
            """,
        subcommands: [List.self, Build.self, Path.self, Verify.self, Clean.self],
        defaultSubcommand: List.self)

    /// `mingle images list`
    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List the images that are there.",
            discussion: """
                Nothing is fetched or built.

                EXAMPLES
                  mingle images list --json | jq -r '.images[].path'
                """)

        @Flag(help: "Print a JSON object with the keys cache and images; sizes are in bytes.")
        var json = false

        @OptionGroup var log: LogOptions

        func run() throws {
            let (cache, images) = try ImageProvider(console: log.console).list()
            if json {
                try StandardOutput.print(
                    JSONValue.object([("cache", .string(cache)), ("images", ImagesCommand.json(images))])
                        .text())
            } else {
                try StandardOutput.print(ImagesCommand.table(images))
            }
        }
    }

    /// `mingle images build`
    struct Build: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Fetch the kernel and build the initial RAM disk.",
            discussion: """
                'mingle run' does the same when it needs to. What is there already is not fetched again.

                EXAMPLES
                  mingle images build
                  mingle images build --update
                """)

        @Flag(help: "Fetch the newest kernel even if there is one.")
        var update = false

        @Flag(help: "Print a JSON array; sizes are in bytes.")
        var json = false

        @OptionGroup var log: LogOptions

        func run() throws {
            let images = try ImageProvider(console: Console(level: min(log.logLevel, .info))).build(
                update: update)
            try StandardOutput.print(json ? ImagesCommand.json(images).text() : ImagesCommand.table(images))
        }
    }

    /// `mingle images path`
    struct Path: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Print the path of an image.",
            discussion: """
                Kernel and RAM disk are fetched and built if they are not there.

                EXAMPLES
                  mingle images path vmlinux
                  mingle images path payload:hello
                """)

        @Argument(help: "vmlinux, vmlinuz, config, initramfs, cache or payload:NAME.")
        var name: String

        @Flag(help: "Print a JSON object with the keys name and path.")
        var json = false

        @OptionGroup var log: LogOptions

        func run() throws {
            let path = try ImageProvider(console: log.console).path(name)
            // A path is for programs, whatever is in it.
            if !json { return try StandardOutput.show(path + "\n") }
            try StandardOutput.print(
                JSONValue.object([("name", .string(name)), ("path", .string(path))]).text())
        }
    }

    /// `mingle images verify`
    struct Verify: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Check that the images are what they should be.",
            discussion: """
                Every file of the kernels is compared with its SHA-256, every payload's header is read. The status is \
                1 if something is wrong.

                EXAMPLES
                  mingle images verify --json
                """)

        @Flag(help: "Print a JSON array of objects with the keys name, ok and problem.")
        var json = false

        @OptionGroup var log: LogOptions

        func run() throws {
            let results = try ImageProvider(console: log.console).verify()
            if json {
                let values = results.map { result in
                    JSONValue.object([
                        ("name", .string(result.name)), ("ok", .boolean(result.problem == nil)),
                        ("problem", .optional(result.problem)),
                    ])
                }
                try StandardOutput.print(JSONValue.array(values).text())
            } else if results.isEmpty {
                try StandardOutput.print("there are no images: see 'mingle images build'")
            } else {
                for result in results {
                    try StandardOutput.print("\(result.name): \(result.problem ?? "ok")")
                }
            }
            if results.contains(where: { $0.problem != nil }) { throw ExitCode.failure }
        }
    }

    /// `mingle images clean`
    struct Clean: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Remove the cached kernels and RAM disks.",
            discussion: """
                They are fetched and built again when they are needed. Guests that run are not disturbed, and \
                payloads, which are not cached, stay.

                EXAMPLES
                  mingle images clean
                """)

        @Flag(help: "Print a JSON object with the key freed_bytes.")
        var json = false

        @OptionGroup var log: LogOptions

        func run() throws {
            let freed = try ImageProvider(console: log.console).clean()
            try StandardOutput.print(
                json
                    ? JSONValue.object([("freed_bytes", .unsigned(freed))]).text()
                    : "freed \(ByteSize.format(freed))")
        }
    }

    private static func json(_ images: [ImageProvider.Image]) -> JSONValue {
        .array(
            images.map { image in
                .object([
                    ("kind", .string(image.kind.rawValue)), ("name", .string(image.name)),
                    ("path", .string(image.path)), ("size_bytes", .unsigned(image.bytes)),
                    ("source", .optional(image.source)),
                ])
            })
    }

    private static func table(_ images: [ImageProvider.Image]) -> String {
        var table = TextTable(["KIND", "NAME", "SIZE", "PATH"], rightAligned: ["SIZE"])
        for image in images {
            table.add([image.kind.rawValue, image.name, ByteSize.format(image.bytes), image.path])
        }
        return table.text
    }
}
