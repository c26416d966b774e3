//! The participants' contract: the messages of `aether.v1.Fabric` and their one conversion to and from the domain.
//!
//! `proto/aether/v1/fabric.proto` is the contract; [`v1`] is generated from it. Documents that are hashed or signed
//! (plans, orders, manifests, outcomes) travel as the canonical JSON of `aether-core`, so that what is verified is
//! the very bytes that were approved.

mod convert;
pub mod telemetry;

pub use convert::{
    Malformed, Workload, principal_name, subject_from_proto, subject_to_proto, workload_from_proto, workload_to_proto,
};

/// Generated from `proto/aether/v1/fabric.proto`.
#[allow(
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    unreachable_pub,
    missing_docs,
    unused_qualifications,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("aether.v1");
}

/// Newest first; what `Hello.protocol_versions` offers and the host compares.
pub const PROTOCOL_VERSIONS: [&str; 1] = ["1.0"];

/// Bytes of one snapshot chunk before compression.
pub const CHUNK_BYTES: usize = 1 << 20;

/// The largest frame that either side takes, with room for a chunk and its wrapping.
pub const FRAME_BYTES_MAXIMUM: usize = 4 << 20;
