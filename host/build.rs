//! Rebuilds when a migration is added, and makes sure that the folder of the web page exists for embedding.

fn main() -> std::io::Result<()> {
    println!("cargo:rerun-if-changed=migrations");
    println!("cargo:rerun-if-changed=ui/dist");
    std::fs::create_dir_all("ui/dist")
}
