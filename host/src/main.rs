//! The binary `aether`. See [`aether_host::cli`].

fn main() -> std::process::ExitCode {
    aether_host::cli::main()
}
