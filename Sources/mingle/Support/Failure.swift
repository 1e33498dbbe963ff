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
        guard MingleCommand.exitCode(for: error) == .validationFailure else {
            showHelp(error)
            MingleCommand.exit(withError: MingleCommand.exitCode(for: error))
        }
        let text = MingleCommand.message(for: error).split(separator: "\n").joined(separator: " ")
        Console.write("mingle: \(text) (\(hint(for: text)))")
        MingleCommand.exit(withError: ExitCode.validationFailure)
    }

    /// Help, version and completion scripts are results, too.
    private static func showHelp(_ error: any Error) {
        guard !(error is ExitCode) else { return }
        let text = MingleCommand.fullMessage(for: error)
        guard !text.isEmpty else { return }
        guard MingleCommand.exitCode(for: error) == .success else { return Console.write(text) }
        do throws(SupportError) { try StandardOutput.print(text) } catch {
            Console.write("mingle: error: \(error)")
            MingleCommand.exit(withError: ExitCode.failure)
        }
    }

    /// What to read after a usage error.
    private static func hint(for text: String) -> String {
        let names = MingleCommand.configuration.subcommands.compactMap { $0.configuration.commandName }
        guard let name = CommandLine.arguments.dropFirst().first, names.contains(name) else {
            return "see 'mingle --help'"
        }
        var advice = ""
        if name == "run", text.lowercased().contains("unexpected argument") {
            advice =
                text.contains("'payload:")
                ? "a payload is named with --kernel; " : "a command to run in the guest goes after '--'; "
        }
        return advice + "see 'mingle \(name) --help'"
    }
}

extension ValidationError {
    /// A problem with the value of an option, as a usage error.
    static func checking<Value>(_ body: () throws(SupportError) -> Value) throws -> Value {
        do throws(SupportError) { return try body() } catch { throw ValidationError(error.description) }
    }
}

/// Numbers without a sign, as options take them.
enum WholeNumber {
    /// Reads the value of an option.
    static func parse<Number: FixedWidthInteger & UnsignedInteger>(_ text: String) throws -> Number {
        guard let number = Number(text) else {
            throw ValidationError("write a whole number, 0 to \(Number.max)")
        }
        return number
    }
}

/// A number of seconds, at least one.
struct Seconds: CustomStringConvertible {
    let count: Int

    init(_ count: Int) { self.count = count }

    /// Reads the value of an option.
    static func parse(_ text: String) throws -> Seconds {
        guard let count = Int(text), (1...Int(Int32.max)).contains(count) else {
            throw ValidationError("write a whole number of seconds, 1 or more")
        }
        return Seconds(count)
    }

    var description: String { "\(count)" }
}

/// An amount of memory such as 128M.
struct MemorySize: CustomStringConvertible {
    let bytes: UInt64

    init(bytes: UInt64) { self.bytes = bytes }

    /// Reads the value of an option.
    static func parse(_ text: String) throws -> MemorySize {
        try ValidationError.checking { () throws(SupportError) in MemorySize(bytes: try ByteSize.parse(text))
        }
    }

    var description: String { ByteSize.format(bytes) }
}
