//! `skiff`: hands over to the command.

fn main() -> std::process::ExitCode {
    skiff::cli::main()
}
