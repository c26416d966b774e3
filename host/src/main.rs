//! The binary `aether`. See `aether_host::cli`.

fn main() -> anyhow::Result<()> {
    aether_host::cli::main()
}
