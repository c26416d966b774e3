//! What is to be seen without asking the system: journals as files, processes as the kernel has them, the workload's
//! own file.

use super::Who;
use rustix::fs::inotify;
use serde_json::Value;
use sqlx::{Connection as _, Row as _, SqliteConnection, sqlite::SqliteConnectOptions};
use std::{
    collections::BTreeMap,
    fs,
    mem::MaybeUninit,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};

/// Where a journal is, and from where on it is looked at.
pub(crate) enum Journal {
    /// The host's database; the row that was the last one before.
    Host { database: PathBuf, after: i64 },
    /// An agent's file; its length before.
    Agent { file: PathBuf, after: usize },
}

impl Journal {
    pub(crate) fn host(data: &Path) -> Self {
        let mut journal = Journal::Host { database: data.join("aether.db"), after: 0 };
        let newest = journal.rows("SELECT coalesce(max(rowid), 0), '' FROM journal WHERE rowid >= ?");
        if let Journal::Host { after, .. } = &mut journal {
            *after = newest.first().map_or(0, |(row, _)| row.parse().unwrap());
        }
        journal
    }

    pub(crate) fn agent(state: &Path) -> Self {
        let file = state.join("journal/journal");
        let after = fs::metadata(&file).map_or(0, |meta| usize::try_from(meta.len()).unwrap());
        Journal::Agent { file, after }
    }

    /// The folder in which writing shows.
    fn folder(&self) -> &Path {
        match self {
            Journal::Host { database: file, .. } | Journal::Agent { file, .. } => file.parent().unwrap(),
        }
    }

    /// Two columns of text of the host's journal.
    fn rows(&self, query: &'static str) -> Vec<(String, String)> {
        let Journal::Host { database, after } = self else { return vec![] };
        let options = SqliteConnectOptions::new().filename(database).busy_timeout(Duration::from_secs(20));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
            let rows = sqlx::query(query).bind(after).fetch_all(&mut connection).await.unwrap();
            connection.close().await.unwrap();
            rows.iter()
                .map(|row| {
                    let text = |index: usize| {
                        row.try_get::<String, _>(index)
                            .or_else(|_| row.try_get::<i64, _>(index).map(|number| number.to_string()))
                            .unwrap_or_default()
                    };
                    (text(0), text(1))
                })
                .collect()
        })
    }

    /// The entries since, by the names of the steps.
    pub(crate) fn entries(&self) -> Vec<String> {
        match self {
            Journal::Host { .. } => {
                let rows = self.rows(
                    "SELECT json_extract(j.event, '$.event'), CASE l.direction WHEN 'forward' THEN l.verb END FROM journal j
                     LEFT JOIN ledger l ON l.key = json_extract(j.event, '$.key') WHERE j.rowid > ? ORDER BY j.rowid",
                );
                rows.into_iter().map(|(event, verb)| format!("{} {event}", last(&verb)).trim().to_owned()).collect()
            }
            Journal::Agent { file, after } => {
                let mut verbs: BTreeMap<String, String> = BTreeMap::new();
                let entry = |record: Value| {
                    let key = record["key"].as_str()?.to_owned();
                    let kind = record["record"].as_str()?.to_owned();
                    if kind == "accepted" {
                        verbs.insert(key.clone(), record["verb"].as_str()?.to_owned());
                    }
                    let what = record["phase"].as_str().map_or(kind, str::to_owned);
                    Some(format!("{} {what}", last(verbs.get(&key)?)))
                };
                let bytes = fs::read(file).unwrap_or_default();
                records(bytes.get(*after..).unwrap_or_default()).into_iter().filter_map(entry).collect()
            }
        }
    }
}

fn last(verb: &str) -> &str {
    verb.rsplit('.').next().unwrap_or_default()
}

/// The whole records of an agent's journal.
pub(crate) fn records(mut bytes: &[u8]) -> Vec<Value> {
    let mut records = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap();
        let Some(body) = rest.get(4..4 + length) else { break };
        let Ok(record) = serde_json::from_slice(body) else { break };
        records.push(record);
        bytes = &rest[4 + length..];
    }
    records
}

/// Kills a process as soon as its journal has an entry.
pub(crate) struct Trap {
    thread: JoinHandle<bool>,
    /// A change here ends the waiting.
    off: tempfile::TempDir,
}

impl Trap {
    pub(crate) fn set(journal: Arc<Journal>, step: &'static str, pid: u32) -> Self {
        let off = tempfile::tempdir().unwrap();
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
        inotify::add_watch(&watch, journal.folder(), inotify::WatchFlags::MODIFY).unwrap();
        let stop = inotify::add_watch(&watch, off.path(), inotify::WatchFlags::CREATE).unwrap();
        let victim = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        let thread = std::thread::spawn(move || {
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut changes = inotify::Reader::new(&watch, &mut buffer);
            loop {
                if journal.entries().iter().any(|entry| entry == step) {
                    return rustix::process::kill_process(victim, rustix::process::Signal::KILL).is_ok();
                }
                if changes.next().is_ok_and(|change| change.wd() == stop) {
                    return false;
                }
            }
        });
        Self { thread, off }
    }

    pub(crate) fn sprung(&self) -> bool {
        self.thread.is_finished()
    }

    /// Whether it killed.
    pub(crate) fn take_away(self) -> bool {
        let _ = fs::write(self.off.path().join("off"), "");
        self.thread.join().unwrap()
    }
}

/// Processes with this progress file that are neither stopped nor dead.
pub(crate) fn running(file: &Path) -> Vec<u32> {
    let wanted = file.as_os_str().as_encoded_bytes();
    let Ok(processes) = fs::read_dir("/proc") else { return vec![] };
    let runs = |pid: u32| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        command.split(|byte| *byte == 0).find(|argument| *argument == wanted)?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let state = stat.rsplit(')').next()?.trim_start().chars().next()?;
        matches!(state, 'R' | 'S' | 'D').then_some(pid)
    };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(runs).collect()
}

/// Looks all the time whether more than one copy runs.
pub(crate) struct Lookout {
    thread: JoinHandle<bool>,
    off: Arc<AtomicBool>,
}

impl Lookout {
    pub(crate) fn begin(file: PathBuf) -> Self {
        let off = Arc::new(AtomicBool::new(false));
        let stop = off.clone();
        let thread = std::thread::spawn(move || {
            let mut twice = false;
            let mut before = 0;
            while !stop.load(Relaxed) {
                let now = running(&file).len();
                // Once may be a look at one that ends just now.
                twice |= now > 1 && before > 1;
                before = now;
                std::thread::sleep(Duration::from_millis(100));
            }
            twice
        });
        Self { thread, off }
    }

    /// Whether two copies were seen to run side by side.
    pub(crate) fn end(self) -> bool {
        self.off.store(true, Relaxed);
        self.thread.join().unwrap()
    }
}

/// What the workload wrote from `from` on: whether a count is missing, and how many came a second time.
pub(crate) fn counts(file: &Path, from: usize) -> (bool, u64) {
    let text = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(text.get(from..).unwrap_or_default()).into_owned();
    let counts: Vec<u64> = text.lines().filter_map(|line| line.parse().ok()).collect();
    let (mut missing, mut again, mut highest) = (false, 0, None);
    for count in counts {
        match highest {
            Some(high) if count <= high => again += 1,
            Some(high) if count > high + 1 => missing = true,
            Some(_) | None => {}
        }
        highest = highest.max(Some(count));
    }
    (missing, again)
}

/// Keys that stand more than once under one kind of record in any of these journals.
pub(crate) fn repeated(journals: &[PathBuf]) -> Vec<String> {
    let mut seen: BTreeMap<(String, String), u32> = BTreeMap::new();
    for file in journals {
        for record in records(&fs::read(file).unwrap_or_default()) {
            let (Some(kind), Some(key)) = (record["record"].as_str(), record["key"].as_str()) else { continue };
            if ["accepted", "outcome"].contains(&kind) {
                *seen.entry((kind.into(), key.into())).or_default() += 1;
            }
        }
    }
    seen.into_iter().filter(|(_, times)| *times > 1).map(|((kind, key), _)| format!("{kind} {key}")).collect()
}

/// The last entry that is one of the numbered steps.
pub(crate) fn reached(who: Who, entries: &[String]) -> Option<&'static str> {
    let known = |entry: &String| who.steps().iter().copied().find(|step| step == entry);
    entries.iter().rev().find_map(known)
}
