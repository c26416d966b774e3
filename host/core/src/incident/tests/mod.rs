//! Proof of the kernel: stories with goldens, properties over arbitrary journals, and the frozen form of what outlives
//! a process.

mod audited;
mod fixtures;
mod frozen;
mod properties;
mod restarts;
mod scrutiny;
mod stories;
