//! A store in memory that counts what is read, and that fails or stops at a chosen operation.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, memory::InMemory, path::Path,
};
use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// What goes wrong, and with which operation from now on (0 is the next).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) after: u32,
    /// Whether the operation is performed although it is said to have failed.
    pub(crate) performed: bool,
    /// Whether nothing works from then on, as after a crash.
    pub(crate) stops: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Store {
    inner: InMemory,
    fault: Mutex<Option<Fault>>,
    pub(crate) read: AtomicU64,
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a store for tests")
    }
}

fn failure() -> Error {
    Error::Generic { store: "test", source: "this operation fails, as the test wants it".into() }
}

impl Store {
    /// The files of another one, from now on apart from it.
    pub(crate) fn copy(other: &Self) -> Arc<Self> {
        Arc::new(Self { inner: other.inner.fork(), ..Self::default() })
    }

    pub(crate) fn break_down(&self, fault: Option<Fault>) {
        *self.fault.lock().unwrap() = fault;
    }

    /// Whether nothing works any more.
    pub(crate) fn has_stopped(&self) -> bool {
        self.fault.lock().unwrap().is_some_and(|fault| fault.stops && fault.after == 0)
    }

    /// Whether this operation fails, and whether it is performed all the same.
    fn turn(&self) -> Option<bool> {
        let mut fault = self.fault.lock().unwrap();
        let Fault { after, performed, stops } = (*fault)?;
        if after > 0 {
            *fault = Some(Fault { after: after - 1, performed, stops });
            return None;
        }
        *fault = stops.then_some(Fault { after: 0, performed: false, stops });
        Some(performed)
    }

    pub(crate) async fn files(&self) -> Vec<(String, Bytes)> {
        let mut all = Vec::new();
        for meta in self.inner.list(None).try_collect::<Vec<_>>().await.unwrap() {
            let bytes =
                self.inner.get_opts(&meta.location, GetOptions::default()).await.unwrap().bytes().await.unwrap();
            all.push((meta.location.to_string(), bytes));
        }
        all.sort();
        all
    }

    pub(crate) async fn replace(&self, path: &str, bytes: Vec<u8>) {
        self.inner.put_opts(&Path::from(path), bytes.into(), PutOptions::default()).await.unwrap();
    }
}

#[async_trait::async_trait]
impl ObjectStore for Store {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        match self.turn() {
            None => self.inner.put_opts(location, payload, opts).await,
            Some(performed) => {
                if performed {
                    drop(self.inner.put_opts(location, payload, opts).await);
                }
                Err(failure())
            }
        }
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(failure())
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if self.turn().is_some() {
            return Err(failure());
        }
        let body = !options.head;
        let result = self.inner.get_opts(location, options).await?;
        if body {
            self.read.fetch_add(result.range.end - result.range.start, Relaxed);
        }
        Ok(result)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        match self.turn() {
            None => self.inner.delete_stream(locations),
            Some(performed) => {
                let deleted = if performed { self.inner.delete_stream(locations) } else { locations };
                deleted.map(|_| Err(failure())).boxed()
            }
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
