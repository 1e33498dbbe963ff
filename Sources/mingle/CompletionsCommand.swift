import ArgumentParser
import MingleSupport

/// `mingle completions SHELL`.
struct CompletionsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "completions",
        abstract: "Print the completion script of a shell.",
        discussion: """
            EXAMPLES
              mingle completions bash > ~/.local/share/bash-completion/completions/mingle
              mingle completions zsh > ~/.zfunc/_mingle
              mingle completions fish > ~/.config/fish/completions/mingle.fish
            """)

    /// The shells that have one.
    enum Shell: String, CaseIterable, ExpressibleByArgument {
        case bash, zsh, fish

        var script: CompletionShell {
            switch self {
            case .bash: .bash
            case .zsh: .zsh
            case .fish: .fish
            }
        }
    }

    @Argument(help: "bash, zsh or fish.")
    var shell: Shell

    func run() throws { try StandardOutput.print(MingleCommand.completionScript(for: shell.script)) }
}
