//! Imported histories on a host: checked when they come, kept by content below `<data>/histories/`, read when asked for.

use super::{Error, HistoryAbout, HistoryInfo, Imported, Mapping, labels, subject_of};
use crate::{clock, store::Store};
use aether_core::{
    backtest::Event,
    id::{Digest, PrincipalId},
};
use bytes::Bytes;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Bytes of one history, as it comes.
pub const HISTORY_BYTES_LIMIT: usize = 64 << 20;
/// Histories of one host.
const HISTORIES_LIMIT: usize = 100;
const NAMES_TOLD: usize = 100;

/// Cheap to clone.
#[derive(Clone)]
pub struct Histories {
    store: Store,
    folder: PathBuf,
    /// Held by whoever adds or removes files.
    changing: Arc<tokio::sync::Mutex<()>>,
}

impl Histories {
    pub fn open(data: &Path, store: Store) -> Result<Self, std::io::Error> {
        let folder = data.join("histories");
        std::fs::create_dir_all(&folder)?;
        Ok(Self { store, folder, changing: Arc::default() })
    }

    /// Reads and keeps a CSV under a name; one of that name, labels included, is replaced.
    pub async fn put(&self, name: &str, csv: Bytes, mapping: Mapping, by: &PrincipalId) -> Result<HistoryInfo, Error> {
        let form = |reason: String| Error::Form { name: name.chars().take(80).collect(), reason };
        if !is_history_name(name) {
            return Err(form(
                "a history's name is 1 to 63 of `A-Z a-z 0-9 . _ -`, and begins with a letter or digit".into(),
            ));
        }
        let _changing = self.changing.lock().await;
        let known = self.store.histories().await?;
        if known.len() >= HISTORIES_LIMIT && known.iter().all(|history| history.name != name) {
            return Err(form(format!("{HISTORIES_LIMIT} histories are kept already; delete one first")));
        }
        let folder = self.folder.clone();
        let (of, named) = (mapping.clone(), name.to_owned());
        let work = move || -> Result<(Digest, HistoryAbout), Error> {
            let imported = Imported::read([(named.as_str(), &csv[..])], &of)?;
            let digest = Digest::of(&csv);
            let path = folder.join(format!("{digest}.csv.zst"));
            let unwritten = |source| Error::Read { name: "the history's file".into(), source };
            let packed = zstd::encode_all(&csv[..], 3).map_err(unwritten)?;
            let new = path.with_extension("new");
            std::fs::write(&new, packed).and_then(|()| std::fs::rename(&new, &path)).map_err(unwritten)?;
            Ok((digest, about(&imported, &of, csv.len())))
        };
        let (digest, about) = tokio::task::spawn_blocking(work).await.map_err(|_| Error::Died)??;
        let info = HistoryInfo {
            name: name.to_owned(),
            digest,
            about,
            labels: None,
            uploaded_at: clock::now(),
            uploaded_by: by.clone(),
        };
        self.store.put_history(&info).await?;
        self.sweep().await?;
        Ok(info)
    }

    /// Reads and keeps the labels of a history.
    pub async fn put_labels(&self, name: &str, bytes: &[u8]) -> Result<HistoryInfo, Error> {
        let (imported, _) = self.load(name).await?;
        let events = labels(name, bytes, Some(&imported))?;
        self.store.put_labels(name, &events).await?;
        Ok(self.store.history(name).await?.ok_or_else(|| unknown(name))?.0)
    }

    pub async fn list(&self) -> Result<Vec<HistoryInfo>, Error> {
        Ok(self.store.histories().await?)
    }

    pub async fn delete(&self, name: &str) -> Result<(), Error> {
        let _changing = self.changing.lock().await;
        if !self.store.delete_history(name).await? {
            return Err(unknown(name));
        }
        self.sweep().await
    }

    /// A history with its labels, verified.
    pub(super) async fn load(&self, name: &str) -> Result<(Imported, Option<Vec<Event>>), Error> {
        let (info, labels) = self.store.history(name).await?.ok_or_else(|| unknown(name))?;
        let path = self.folder.join(format!("{}.csv.zst", info.digest));
        let work = move || {
            let damaged = |source| Error::Read { name: format!("the history `{}`", info.name), source };
            let csv = std::fs::read(&path).and_then(|packed| zstd::decode_all(&packed[..])).map_err(damaged)?;
            if Digest::of(&csv) != info.digest {
                return Err(damaged(std::io::Error::other("its file is not what was brought")));
            }
            let HistoryAbout { metric, unit, subject, .. } = &info.about;
            let subject = subject.as_deref().map(subject_of).transpose();
            let subject = subject.map_err(|reason| Error::Form { name: info.name.clone(), reason })?;
            let mapping = Mapping { metric: metric.clone(), unit: unit.clone(), subject };
            Imported::read([(info.name.as_str(), &csv[..])], &mapping)
        };
        Ok((tokio::task::spawn_blocking(work).await.map_err(|_| Error::Died)??, labels))
    }

    /// Removes files that no name refers to.
    async fn sweep(&self) -> Result<(), Error> {
        let kept: BTreeSet<String> =
            self.store.histories().await?.into_iter().map(|history| format!("{}.csv.zst", history.digest)).collect();
        let folder = self.folder.clone();
        let work = move || -> std::io::Result<()> {
            for entry in std::fs::read_dir(&folder)? {
                let entry = entry?;
                if !kept.contains(&*entry.file_name().to_string_lossy()) {
                    std::fs::remove_file(entry.path())?;
                }
            }
            Ok(())
        };
        let swept = tokio::task::spawn_blocking(work).await.map_err(|_| Error::Died)?;
        swept.map_err(|source| Error::Read { name: "the folder of histories".into(), source })
    }
}

/// Such as NAB's files have.
fn is_history_name(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=63).contains(&name.len()) && name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(inner)
}

fn unknown(name: &str) -> Error {
    Error::Unknown { what: "history", id: name.chars().take(80).collect() }
}

fn about(imported: &Imported, mapping: &Mapping, bytes: usize) -> HistoryAbout {
    let wide = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let mut names = BTreeSet::new();
    for (_, excerpt) in imported.subjects() {
        let told = |(name, unit): (&str, Option<&str>)| match unit {
            Some(unit) => format!("{name} [{unit}]"),
            None => format!("{name} (event)"),
        };
        names.extend(excerpt.names().into_iter().map(told));
    }
    let span = imported.subjects().filter_map(|(_, excerpt)| excerpt.span());
    let span = span.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
    HistoryAbout {
        metric: mapping.metric.clone(),
        unit: mapping.unit.clone(),
        subject: mapping.subject.as_ref().map(ToString::to_string),
        bytes: wide(bytes),
        samples: imported.subjects().map(|(_, excerpt)| wide(excerpt.samples())).sum(),
        subjects: wide(imported.subjects().count()),
        from: span.map(|span| span.0),
        to: span.map(|span| span.1),
        names: names.into_iter().take(NAMES_TOLD).collect(),
    }
}
