//! `aether audit`: who did what, an export of all of it, and whether it is whole. An export is verified without the host.

use super::{Client, SHORT, say, show};
use crate::api::view::{AuditLine, AuditPage};
use aether_core::audit::{Broken, Entry, Head, Walk};
use anyhow::Context as _;
use clap::Subcommand;
use serde_json::json;
use std::{
    fs::File,
    io::{BufRead, BufReader, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

/// The longest line of an export that is read. An entry is smaller by far.
const LINE_BYTES: u64 = 1 << 20;

#[derive(Debug, Subcommand)]
pub(super) enum Audit {
    /// What was done and refused, newest first.
    List {
        /// How many entries.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=200))]
        limit: u32,
    },
    /// Write the whole audit as JSON lines, oldest first. Says how far the chain goes: note that elsewhere.
    Export {
        /// Where to [default: standard output].
        file: Option<PathBuf>,
    },
    /// Walk the chain from its first entry: is any entry changed, missing, moved or cut off?
    Verify {
        /// An export; no host is asked [default: the host walks its own].
        file: Option<PathBuf>,
        /// A head that was noted before (NUMBER:HASH), as often as there are some: the chain must hold each.
        #[arg(long, value_parser = head)]
        head: Vec<Head>,
    },
}

fn head(text: &str) -> Result<Head, String> {
    Head::parse(text).ok_or_else(|| "a head is NUMBER:HASH, with the 64 digits of an entry's hash".into())
}

pub(super) async fn run(
    audit: Audit,
    client: impl FnOnce() -> anyhow::Result<Client>,
    json: bool,
) -> anyhow::Result<ExitCode> {
    match audit {
        Audit::List { limit } => list(&client()?, limit, json).await?,
        Audit::Export { file } => export(&client()?, file, json).await?,
        Audit::Verify { file: Some(file), head } => return told(verify(&file, head)?, json),
        Audit::Verify { file: None, head } => {
            let found = if head.is_empty() { host(&client()?).await? } else { exported(&client()?, head).await? };
            return told(found, json);
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(client: &Client, limit: u32, json: bool) -> anyhow::Result<()> {
    let page: AuditPage = client.get(&format!("audit?limit={limit}")).await?;
    if json {
        return show::json(&page);
    }
    let rows: Vec<_> = page.entries.iter().map(row).collect();
    show::table(["NO.", "WHEN", "WHO", "DID", "OUTCOME", "TO", "DETAIL"], &rows);
    Ok(())
}

fn row(entry: &Entry) -> [String; 7] {
    let detail: Vec<String> = entry.detail.iter().map(|(name, value)| format!("{name}={value}")).collect();
    [
        entry.number.to_string(),
        show::time(entry.at),
        entry.principal.0.clone(),
        entry.action.clone(),
        entry.outcome.name().into(),
        entry.target.clone(),
        detail.join(" "),
    ]
}

async fn export(client: &Client, file: Option<PathBuf>, json: bool) -> anyhow::Result<()> {
    let Some(path) = file else {
        let mut out = std::io::stdout().lock();
        return client.stream("audit/export", |piece| Ok(out.write_all(piece)?)).await;
    };
    let unwritten = || format!("the file {} cannot be written", path.display());
    let mut out = File::create(&path).with_context(unwritten)?;
    client.stream("audit/export", |piece| out.write_all(piece).with_context(unwritten)).await?;
    out.sync_all().with_context(unwritten)?;
    let found =
        verify(&path, vec![])?.map_err(|broken| anyhow::anyhow!("the host's audit is not whole: {broken} [AE0090]"))?;
    if json {
        return show::json(&json!({ "file": path, "head": found, "noted": found.to_string() }));
    }
    say(&format!("{} entries. Note this elsewhere; with it the export shows that nothing was cut off:", found.number));
    say(&found.to_string());
    Ok(())
}

/// What the host says of its own chain.
async fn host(client: &Client) -> anyhow::Result<Result<Head, Failure>> {
    let page: AuditPage = client.get("audit?limit=1&verify=true").await?;
    Ok(match (page.chain_head, page.chain_broken_at) {
        (Some(head), None) => Ok(head),
        (_, number) => {
            let why = page.chain_broken_why.unwrap_or_default();
            let number = number.unwrap_or_default();
            Err(Failure { number, text: format!("entry {number}: {why}") })
        }
    })
}

/// Here, over what the host exports: it is not asked whether it holds what was noted.
async fn exported(client: &Client, noted: Vec<Head>) -> anyhow::Result<Result<Head, Failure>> {
    let mut file = tempfile::NamedTempFile::new().context("no temporary file can be made")?;
    client.stream("audit/export", |piece| Ok(file.write_all(piece)?)).await?;
    verify(file.path(), noted)
}

/// Why a chain is not whole.
struct Failure {
    number: u64,
    text: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<Broken> for Failure {
    fn from(broken: Broken) -> Self {
        Self { number: broken.number, text: broken.to_string() }
    }
}

/// Walks an export, line by line.
fn verify(path: &Path, noted: Vec<Head>) -> anyhow::Result<Result<Head, Failure>> {
    let unread = || format!("the file {} cannot be read", path.display());
    let mut reader = BufReader::new(File::open(path).with_context(unread)?);
    let (mut walk, mut last, mut line) = (Walk::new(noted), None, String::new());
    loop {
        line.clear();
        let mut bounded = std::io::Read::take(&mut reader, LINE_BYTES);
        let read = match bounded.read_line(&mut line) {
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                return Ok(Err(walk.unreadable("it is not text".into()).into()));
            }
            Err(error) => return Err(error).with_context(unread),
        };
        if read == 0 {
            break;
        }
        if last.is_some() {
            return Ok(Err(walk.unreadable("something stands behind the last line of the export".into()).into()));
        }
        let taken = match serde_json::from_str(&line) {
            Ok(AuditLine::Entry(entry)) => walk.take(&entry),
            Ok(AuditLine::Head(head)) => {
                last = Some(head);
                Ok(())
            }
            Err(error) => Err(walk.unreadable(error.to_string())),
        };
        if let Err(broken) = taken {
            return Ok(Err(broken.into()));
        }
    }
    let missing = walk.unreadable("the export ends without its last line, which says how far the chain goes".into());
    let found = match walk.end() {
        Ok(found) => found,
        Err(broken) => return Ok(Err(broken.into())),
    };
    Ok(match last {
        None => Err(missing.into()),
        Some(said) if said != found => {
            let text = format!(
                "the export ends at entry {}, and its last line says that the chain goes to {}",
                found.number, said.number
            );
            Err(Failure { number: found.number + 1, text })
        }
        Some(_) => Ok(found),
    })
}

fn told(found: Result<Head, Failure>, json: bool) -> anyhow::Result<ExitCode> {
    match found {
        Ok(head) => {
            if json {
                show::json(&json!({ "whole": true, "entries": head.number, "head": head.to_string() }))?;
            } else {
                say(&format!("Whole: {} entries, each as it was written, up to {head}", head.number));
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(failure) => {
            if json {
                show::json(&json!({ "whole": false, "broken_at": failure.number, "why": failure.text }))?;
            } else {
                say(&format!("Not whole. {} [AE0090]", failure.text));
            }
            Ok(ExitCode::from(SHORT))
        }
    }
}
