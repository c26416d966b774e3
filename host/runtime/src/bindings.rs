//! Types generated from `wit/aether.wit`. One world of our own holds all that any role imports or exports; a component
//! is bound interface by interface, so that the shared types exist once and not once for each role.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    reason = "generated; documented in wit/aether.wit"
)]

wasmtime::component::bindgen!({
    path: "../../wit",
    inline: "
        package aether:host;
        world host {
            import aether:plugin/log@0.1.0;
            import aether:plugin/assets@0.1.0;
            import aether:plugin/history@0.1.0;
            export aether:plugin/plugin@0.1.0;
            export aether:plugin/scoring@0.1.0;
            export aether:plugin/planning@0.1.0;
            export aether:plugin/gating@0.1.0;
            export aether:plugin/routing@0.1.0;
        }
    ",
    world: "aether:host/host",
    imports: { default: trappable },
    // A question is lowered from where it lies, not from a copy.
    ownership: Borrowing { duplicate_if_necessary: true },
});
