//! The runtime as its users see it: real components, real files, and guests that mean harm.

mod bombs;
mod compile;
mod contract;
mod guest;
mod hostile;
mod load;
mod models;
mod plugins;
mod realloc;
mod replay;
mod secrets;
mod snapshot;
mod wasi;
