//! Types generated from `host/runtime/wit`, with our own types for the resources.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    reason = "generated; documented in host/runtime/wit"
)]

wasmtime::component::bindgen!({
    path: "wit",
    world: "aether:wasi/wasi",
    imports: { default: trappable },
    with: {
        "wasi:io/error.error": crate::wasi::Never,
        "wasi:io/poll.pollable": crate::wasi::io::Pollable,
        "wasi:io/streams.input-stream": crate::wasi::io::Input,
        "wasi:io/streams.output-stream": crate::wasi::io::Output,
        "wasi:cli/terminal-input.terminal-input": crate::wasi::Never,
        "wasi:cli/terminal-output.terminal-output": crate::wasi::Never,
        "wasi:filesystem/types.descriptor": crate::wasi::filesystem::Descriptor,
        "wasi:filesystem/types.directory-entry-stream": crate::wasi::filesystem::Entries,
        "wasi:sockets/network.network": crate::wasi::sockets::Network,
        "wasi:sockets/ip-name-lookup.resolve-address-stream": crate::wasi::Never,
        "wasi:sockets/tcp.tcp-socket": crate::wasi::Never,
        "wasi:sockets/udp.udp-socket": crate::wasi::Never,
        "wasi:sockets/udp.incoming-datagram-stream": crate::wasi::Never,
        "wasi:sockets/udp.outgoing-datagram-stream": crate::wasi::Never,
    },
});
