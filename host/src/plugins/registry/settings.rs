//! `[plugins]` of the configuration: what the registry takes, whom it trusts, and how long it keeps.

use super::{Error, signature::Key};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The largest component that is taken. Default 32 MiB, 1 KiB to 128 MiB; `runtime.component_bytes` bounds it, too.
    pub upload_bytes: u64,
    /// The largest archive of assets that is taken. Default 64 MiB, 1 KiB to 72 MiB.
    pub assets_bytes: u64,
    /// Bytes of all components and assets. Default 4 GiB, 1 MiB to 1 PiB.
    pub bytes_maximum: u64,
    /// Components without a signature of a trusted key are refused. Default false.
    pub require_signature: bool,
    /// Whose signatures count.
    pub trusted_keys: Vec<Key>,
    /// How long a component is kept after it was last needed. Default 30 days, 1 min to 10 years.
    pub keep_ms: u64,
    /// The newest versions of a name that are kept however old they are. Default 5, 0 to 1,000.
    pub keep_versions: u32,
    /// Registries that are spoken to without TLS, as `host:port`. Default none.
    pub oci_insecure_hosts: Vec<String>,
    /// How long pulling from a registry may take. Default 2 min, 1 s to 10 min.
    pub oci_pull_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            upload_bytes: 32 << 20,
            assets_bytes: 64 << 20,
            bytes_maximum: 4 << 30,
            require_signature: false,
            trusted_keys: vec![],
            keep_ms: 30 * 86_400_000,
            keep_versions: 5,
            oci_insecure_hosts: vec![],
            oci_pull_ms: 120_000,
        }
    }
}

impl Settings {
    /// Refuses a value outside its range, by name, and keys that are none.
    pub fn check(&self) -> Result<(), Error> {
        for (name, value, least, most) in [
            ("upload_bytes", self.upload_bytes, 1 << 10, 128 << 20),
            ("assets_bytes", self.assets_bytes, 1 << 10, 72 << 20),
            ("bytes_maximum", self.bytes_maximum, 1 << 20, 1 << 50),
            ("keep_ms", self.keep_ms, 60_000, 3_650 * 86_400_000),
            ("keep_versions", self.keep_versions.into(), 0, 1_000),
            ("oci_pull_ms", self.oci_pull_ms, 1_000, 600_000),
        ] {
            if !(least..=most).contains(&value) {
                return Err(Error::Setting(format!(
                    "`plugins.{name}` is {value}: it must be between {least} and {most}"
                )));
            }
        }
        for key in &self.trusted_keys {
            key.public().map_err(|why| Error::Setting(format!("`plugins.trusted_keys`: {why}")))?;
        }
        if self.require_signature && self.trusted_keys.is_empty() {
            let why = "`plugins.require_signature` is on and `plugins.trusted_keys` is empty, so no component could be \
                       taken; name a key (`aether plugin keygen` makes one)";
            return Err(Error::Setting(why.into()));
        }
        Ok(())
    }
}
