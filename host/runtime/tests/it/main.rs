//! The runtime as its users see it: real components, real files, and guests that mean harm.

mod compile;
mod contract;
mod guest;
mod hostile;
mod load;
mod plugins;
mod replay;
mod snapshot;
mod wasi;
