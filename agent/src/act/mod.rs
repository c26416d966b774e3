pub mod criu;
