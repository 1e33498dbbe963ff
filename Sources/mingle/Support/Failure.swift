import ArgumentParser
import MingleSupport

/// An error that ends the program with a message of one line and a status of its own.
struct Failure: Error {
    let message: String
    let status: Int32

    /// Ends the program as `error` asks: help goes to standard output, everything else is one line on standard error.
    static func exit(_ error: any Error) -> Never {
        if let failure = error as? Failure {
            Console.write("mingle: error: \(failure.message)")
            MingleCommand.exit(withError: ExitCode(failure.status))
        }
        if let problem = error as? SupportError {
            Console.write("mingle: error: \(problem)")
            MingleCommand.exit(withError: ExitCode.failure)
        }
        guard MingleCommand.exitCode(for: error) == .validationFailure else { MingleCommand.exit(withError: error) }
        let text = MingleCommand.message(for: error).split(separator: "\n").joined(separator: " ")
        Console.write("mingle: \(text) (see 'mingle --help' and 'mingle SUBCOMMAND --help')")
        MingleCommand.exit(withError: ExitCode.validationFailure)
    }
}


extension ValidationError {
    /// A problem with the value of an option, as a usage error.
    static func checking<Value>(_ body: () throws(SupportError) -> Value) throws -> Value {
        do throws(SupportError) { return try body() } catch { throw ValidationError(error.description) }
    }
}

/// A number of seconds, at least one.
struct Seconds: ExpressibleByArgument {
    let count: Int

    init?(argument: String) {
        guard let count = Int(argument), (1...Int(Int32.max)).contains(count) else { return nil }
        self.count = count
    }

    init(_ count: Int) { self.count = count }

    var defaultValueDescription: String { "\(count)" }
}

/// An amount of memory such as 128M.
struct MemorySize: ExpressibleByArgument {
    let bytes: UInt64

    init?(argument: String) {
        guard let bytes = try? ByteSize.parse(argument) else { return nil }
        self.bytes = bytes
    }

    init(bytes: UInt64) { self.bytes = bytes }

    var defaultValueDescription: String { ByteSize.format(bytes) }
}
