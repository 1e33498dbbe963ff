import FrameBroker
import Glibc
import LinuxHost

/// The frame broker of one user: it keeps what guests share. Guests start it; people need not.
@main
struct Broker {
    static func main() {
        if let problem = ProgramStart.check() {
            HostProcess.say("\(problem)")
            exit(1)
        }
        let status = BrokerProgram.run(Array(CommandLine.arguments.dropFirst()))
        if status == 64 {
            print(
                "usage: mingle-broker start DIRECTORY\nKeeps the memory that this user's guests share; mingle starts it."
            )
        }
        exit(status)
    }
}
