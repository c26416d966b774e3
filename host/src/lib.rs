//! The control plane: everything around the pure core that waits, talks and stores.
//!
//! `control` drives the core, `fabric` speaks with participants, `store` holds the only SQL, `blobs` the only object
//! store, `plugins` the slots, `api` what people and programs call, `auth` who may.

pub mod api;
pub mod auth;
pub mod blobs;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod drills;
pub mod fabric;
pub mod forward;
pub mod ingest;
mod outbound;
pub mod plugins;
pub mod serve;
pub mod signals;
pub mod snapshots;
pub mod store;
