//! The compiling child alone, for those who embed the runtime, and for its tests and benches. The host needs no second
//! program: `aether` calls itself.

fn main() -> std::process::ExitCode {
    aether_runtime::compile::serve_child()
}
