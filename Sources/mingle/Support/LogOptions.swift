import ArgumentParser
import MingleSupport
import VMMProtocol

/// The options that every subcommand has.
struct LogOptions: ParsableArguments {
    @Option(help: "How much to tell on standard error: trace, debug, info, warning or error.")
    var logLevel = LogLevel.warning

    var console: Console { Console(level: logLevel) }
}
