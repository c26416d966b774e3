//! The binary `aether`. See [`aether_host::cli`].

/// What a batch brings is let go by another thread, ten seconds later: see `docs/decisions/0012-allocator.md`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    aether_host::cli::main()
}
