//! The native agent of a node: samples the machine, keeps what the host has not made safe, and carries out orders.
//!
//! It decides nothing: what is done here was planned, approved and signed elsewhere, and is refused if anything of it
//! is off ([`act`]). It never sees a plugin or a database. One task set; shutdown waits for it.
//!
//! | module | what it is |
//! |---|---|
//! | [`collect`] | where numbers come from |
//! | `sampler` | how often they are taken |
//! | [`spool`] | numbers that are not safe at the host yet |
//! | [`uplink`] | the one connection |
//! | [`act`] | orders: checked, journaled, carried out |
//! | [`drill`] | disturbances to practise on |
//! | [`workloads`] | what runs under this agent |
//! | [`capabilities`] | what this machine can do, and why not |
//! | [`agent`] | all of it, wired |

pub mod act;
pub mod agent;
mod blocking;
pub mod capabilities;
pub mod clock;
pub mod collect;
pub mod config;
pub mod drill;
mod durable;
pub mod privileges;
pub mod process;
mod sampler;
pub mod signals;
pub mod spool;
pub mod state;
pub mod uplink;
pub mod workloads;
