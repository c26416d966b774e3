//! Generates the messages with a compiler written in Rust, so that no `protoc` has to be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["aether/v1/fabric.proto"], ["proto"])?;
    // The RPC is called `Connect`, which is also what the generated client would call its own dialling.
    tonic_prost_build::configure().build_transport(false).compile_fds(descriptors)?;
    Ok(())
}
