//! Where chunks and manifests lie: a folder of this machine, or a bucket.

use super::{Error, settings::S3};
use object_store::{
    BackoffConfig, ClientOptions, ObjectStore, RetryConfig, aws::AmazonS3Builder, local::LocalFileSystem,
    prefix::PrefixStore,
};
use std::{net::IpAddr, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc, time::Duration};

const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// One request and its answer, which carry a chunk at most.
const REQUEST_WITHIN: Duration = Duration::from_secs(30);
/// Between two tries of a request.
const TRY_AGAIN_FIRST: Duration = Duration::from_millis(100);
const TRY_AGAIN_AT_MOST: Duration = Duration::from_secs(2);
/// Tries of one request; its time ends them before.
const TRIES_MAXIMUM: usize = 10_000;

/// A folder, made if it is not there.
pub(super) fn folder(path: &Path) -> Result<Arc<dyn ObjectStore>, Error> {
    std::fs::create_dir_all(path).map_err(Error::Folder)?;
    // Without `with_fsync` a write is atomic but not synced.
    Ok(Arc::new(LocalFileSystem::new_with_prefix(path)?.with_fsync(true)))
}

/// A bucket. Nothing is sent yet.
pub(super) fn bucket(s3: &S3) -> Result<Arc<dyn ObjectStore>, Error> {
    // TLS is the one that the host has anyway; the only failure is that it was chosen before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = ClientOptions::new().with_connect_timeout(CONNECT_WITHIN).with_timeout(REQUEST_WITHIN);
    let backoff = BackoffConfig { init_backoff: TRY_AGAIN_FIRST, max_backoff: TRY_AGAIN_AT_MOST, base: 2. };
    let retry_timeout = Duration::from_millis(s3.retry_ms);
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(&s3.bucket)
        .with_client_options(client)
        .with_retry(RetryConfig { backoff, max_retries: TRIES_MAXIMUM, retry_timeout });
    if let Some(region) = &s3.region {
        builder = builder.with_region(region);
    }
    if let Some(endpoint) = &s3.endpoint {
        builder = builder.with_endpoint(endpoint).with_allow_http(is_loopback(endpoint));
    }
    if let Some(id) = &s3.access_key_id {
        builder = builder.with_access_key_id(id);
    }
    if let Some(path) = &s3.secret_access_key_file {
        builder = builder.with_secret_access_key(secret(path)?.trim());
    }
    Ok(Arc::new(PrefixStore::new(builder.build()?, s3.prefix.as_str())))
}

/// What a file holds that nobody but its owner may read.
pub(super) fn secret(path: &Path) -> Result<String, Error> {
    let unreadable = |source| Error::Secret { path: path.to_owned(), source };
    let mode = std::fs::metadata(path).map_err(unreadable)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(Error::Open { path: path.to_owned() });
    }
    std::fs::read_to_string(path).map_err(unreadable)
}

/// Whether plain HTTP to it stays on this machine.
fn is_loopback(endpoint: &str) -> bool {
    let uri: Option<axum::http::Uri> = endpoint.parse().ok();
    let host = uri.as_ref().and_then(|uri| uri.host()).unwrap_or_default();
    host == "localhost" || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_stays_on_this_machine() {
        for near in ["http://127.0.0.1:9000", "http://localhost", "http://[::1]:9000"] {
            assert!(is_loopback(near), "{near}");
        }
        for far in ["http://s3.example.org", "http://10.0.0.1:9000", "127.0.0.1.example.org", "http://localhost.evil"] {
            assert!(!is_loopback(far), "{far}");
        }
    }

    #[test]
    fn a_secret_that_others_can_read_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "words\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(secret(&path), Err(Error::Open { .. })));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(secret(&path).unwrap().trim(), "words");
    }
}
