//! `aether plugin keygen, sign, push, pull, show, remove, gc, lift-quarantine` and `aether assets`.

use super::{
    client::{Client, escaped},
    complain, say, show,
};
use crate::{
    api::{
        SIGNATURE_HEADER,
        view::{AssetsUpload, CollectGarbage, Collected, Plugin, PullPlugin, UploadedPlugin},
    },
    clock,
    plugins::registry::{
        AssetsRecord, Provenance, archive,
        retention::Why,
        signature::{self, Document},
    },
};
use aether_core::id::Digest;
use anyhow::{Context, anyhow, bail, ensure};
use clap::Subcommand;
use ed25519_dalek::SigningKey;
use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

#[derive(Debug, Subcommand)]
pub(super) enum Registry {
    /// Make a key that signs components. Its public half goes into `plugins.trusted_keys` of hosts.
    Keygen {
        /// Where the key goes; readable by its owner alone, and never overwritten.
        #[arg(long)]
        out: PathBuf,
    },
    /// Sign a component: writes FILE.sig, which `push` sends along.
    Sign {
        file: PathBuf,
        /// A key that `keygen` made.
        #[arg(long)]
        key: PathBuf,
    },
    /// Bring a component to the host: checked, compiled, and kept by its content. It stands in no slot yet.
    Push {
        file: PathBuf,
        /// Its signature [default: FILE.sig, if there is one].
        #[arg(long)]
        signature: Option<PathBuf>,
        /// A folder of assets to bring along, under the component's name.
        #[arg(long)]
        assets: Option<PathBuf>,
    },
    /// Have the host pull a component from an OCI registry.
    Pull {
        /// Such as `oci://registry.example/risk/spot-risk:1.2.0`, or with `@sha256:...`.
        reference: String,
        /// For a registry that asks for a login.
        #[arg(long, requires = "password")]
        username: Option<String>,
        /// Its password or token.
        #[arg(long, env = "AETHER_OCI_PASSWORD", hide_env_values = true, requires = "username")]
        password: Option<String>,
    },
    /// One component with where it came from, who signed it, and who needs it.
    Show {
        /// Its digest, the beginning of one, or a name: then the newest of it.
        component: String,
    },
    /// Remove a component that nobody needs.
    Remove {
        /// Its digest, or the beginning of one.
        component: String,
    },
    /// Let slots take a component again that was quarantined.
    LiftQuarantine {
        /// Its digest, or the beginning of one.
        component: String,
    },
    /// Remove what the host's policy lets go. It does so by itself every hour.
    Gc {
        /// Say what would be removed, and remove nothing.
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Assets {
    /// Bring a folder of files to the host, kept by their content.
    Push {
        folder: PathBuf,
        /// For people: 1 to 63 of a-z, 0-9, `-` and `.`.
        #[arg(long)]
        name: String,
    },
    /// The sets of files that the host has.
    List,
    /// Remove a set that nobody needs.
    Remove {
        /// Its digest, or the beginning of one.
        set: String,
    },
}

pub(super) async fn run(
    command: Registry,
    client: &impl Fn() -> anyhow::Result<Client>,
    json: bool,
) -> anyhow::Result<()> {
    match command {
        Registry::Keygen { out } => keygen(&out, json),
        Registry::Sign { file, key } => sign(&file, &key, json),
        Registry::Push { file, signature, assets } => {
            let client = client()?;
            let uploaded = push(&file, signature.as_deref(), &client).await?;
            let files = match assets {
                Some(folder) => Some(push_assets(&folder, &uploaded.component.name, &client).await?),
                None => None,
            };
            if json {
                return show::json(&serde_json::json!({ "plugin": uploaded, "assets": files }));
            }
            tell(&uploaded);
            files.iter().for_each(tell_assets);
            Ok(())
        }
        Registry::Pull { reference, username, password } => {
            let request = PullPlugin { reference, username, password };
            let uploaded: UploadedPlugin = client()?.post_slowly("plugins/pull", &request).await?;
            if json {
                return show::json(&uploaded);
            }
            tell(&uploaded);
            Ok(())
        }
        Registry::Show { component } => {
            let client = client()?;
            let digest = find(&component, &client).await?;
            let plugin: Plugin = client.get(&format!("plugins/{}", escaped(&digest.0))).await?;
            if json {
                return show::json(&plugin);
            }
            describe(&plugin);
            Ok(())
        }
        Registry::Remove { component } => {
            let client = client()?;
            let digest = find(&component, &client).await?;
            client.delete(&format!("plugins/{}", escaped(&digest.0))).await?;
            done(json, "removed", &digest, "Removed.")
        }
        Registry::LiftQuarantine { component } => {
            let client = client()?;
            let digest = find(&component, &client).await?;
            client.post_nothing(&format!("plugins/{}/lift-quarantine", escaped(&digest.0))).await?;
            done(json, "lifted", &digest, "Lifted. Slots take it again.")
        }
        Registry::Gc { dry_run } => gc(dry_run, &client()?, json).await,
    }
}

pub(super) async fn assets(assets: Assets, client: &Client, json: bool) -> anyhow::Result<()> {
    match assets {
        Assets::Push { folder, name } => {
            let uploaded = push_assets(&folder, &name, client).await?;
            if json {
                return show::json(&uploaded);
            }
            tell_assets(&uploaded);
            Ok(())
        }
        Assets::List => {
            let sets: Vec<AssetsRecord> = client.get("assets").await?;
            if json {
                return show::json(&sets);
            }
            if sets.is_empty() {
                say("No assets. `aether assets push FOLDER --name NAME` brings some.");
                return Ok(());
            }
            let rows: Vec<_> = sets
                .iter()
                .map(|set| {
                    [
                        set.name.clone(),
                        set.digest.short().to_owned(),
                        set.files.len().to_string(),
                        set.bytes.to_string(),
                        show::time(set.uploaded_at),
                        set.uploaded_by.0.clone(),
                    ]
                })
                .collect();
            show::table(["NAME", "DIGEST", "FILES", "BYTES", "UPLOADED", "BY"], &rows);
            Ok(())
        }
        Assets::Remove { set } => {
            let sets: Vec<AssetsRecord> = client.get("assets").await?;
            let digest = only(&set, sets.into_iter().map(|set| set.digest), "set of assets")?;
            client.delete(&format!("assets/{}", escaped(&digest.0))).await?;
            done(json, "removed", &digest, "Removed.")
        }
    }
}

/// The components of the registry, for `aether plugin list`.
pub(super) fn list(plugins: &[Plugin]) {
    let rows: Vec<_> = plugins
        .iter()
        .filter_map(|plugin| Some((plugin, plugin.registered.as_ref()?)))
        .map(|(plugin, registered)| {
            let slots: Vec<&str> = plugin.slots.iter().map(|slot| slot.as_str()).collect();
            let standing = match &registered.quarantine {
                Some(_) => "quarantined".to_owned(),
                None if slots.is_empty() => "-".to_owned(),
                None => slots.join(", "),
            };
            [
                plugin.description.name.clone(),
                plugin.description.version.clone(),
                plugin.digest.short().to_owned(),
                standing,
                registered.signature.as_ref().map_or_else(|| "nobody".into(), |signed| signed.key_name.clone()),
                source(&registered.provenance),
                show::time(registered.uploaded_at),
                registered.uploaded_by.0.clone(),
            ]
        })
        .collect();
    show::table(["COMPONENT", "VERSION", "DIGEST", "STANDS IN", "SIGNED BY", "FROM", "SINCE", "BY"], &rows);
}

fn source(provenance: &Provenance) -> String {
    match provenance {
        Provenance::Upload { file: Some(file) } => format!("upload of {}", show::short(file, 40)),
        Provenance::Upload { file: None } => "upload".into(),
        Provenance::Oci { reference, .. } => show::short(reference, 60),
        Provenance::Bundle { bundle, .. } => format!("bundle {bundle}"),
    }
}

fn done(json: bool, word: &str, digest: &Digest, said: &str) -> anyhow::Result<()> {
    if json {
        return show::json(&serde_json::json!({ word: digest }));
    }
    say(said);
    Ok(())
}

fn keygen(out: &Path, json: bool) -> anyhow::Result<()> {
    let key = SigningKey::from_bytes(&clock::secret::<32>().context("the operating system gave no random bytes")?);
    let mut file = File::options().create_new(true).write(true).mode(0o600).open(out).with_context(|| {
        format!("the key cannot be written to {}; a file that is there is never overwritten", out.display())
    })?;
    file.write_all(format!("{}\n", hex(key.as_bytes())).as_bytes()).and_then(|()| file.sync_all())?;
    let public = hex(key.verifying_key().as_bytes());
    let id = signature::key_id(&key.verifying_key());
    if json {
        return show::json(&serde_json::json!({ "file": out, "public_key": public, "key_id": id }));
    }
    say(&format!("The key {} is in {}; keep it secret. For hosts that are to trust it:\n", id.short(), out.display()));
    say(&format!("[plugins]\ntrusted_keys = [{{ name = \"{}\", key = \"{public}\" }}]", key_name(out)));
    Ok(())
}

/// The file's name, as far as it does for a key's.
fn key_name(out: &Path) -> String {
    let stem = out.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let name: String = stem.chars().filter(|c| c.is_ascii_alphanumeric() || "-._".contains(*c)).take(64).collect();
    if name.is_empty() { "release".into() } else { name }
}

fn hex(bytes: &[u8; 32]) -> String {
    blake3::Hash::from_bytes(*bytes).to_hex().to_string()
}

fn sign(file: &Path, key: &Path, json: bool) -> anyhow::Result<()> {
    let text = fs::read_to_string(key).with_context(|| format!("the key {} cannot be read", key.display()))?;
    let seed = blake3::Hash::from_hex(text.trim())
        .map_err(|_| anyhow!("{} is not a key that `aether plugin keygen` made", key.display()))?;
    let key = SigningKey::from_bytes(seed.as_bytes());
    let digest = Digest::of(&read(file)?);
    let document = signature::sign(&digest, &key);
    let beside = beside(file);
    fs::write(&beside, serde_json::to_string(&document)? + "\n")
        .with_context(|| format!("{} cannot be written", beside.display()))?;
    if json {
        return show::json(&document);
    }
    say(&format!("{} is signed: {}", digest.short(), beside.display()));
    Ok(())
}

/// `FILE.sig`.
fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".sig");
    name.into()
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("the file {} cannot be read", file.display()))
}

async fn push(file: &Path, signature: Option<&Path>, client: &Client) -> anyhow::Result<UploadedPlugin> {
    let bytes = read(file)?;
    let default = beside(file);
    let signature = match signature {
        Some(path) => Some(read(path)?),
        None if default.exists() => Some(read(&default)?),
        None => None,
    };
    let mut headers = Vec::new();
    if let Some(text) = signature {
        // In one line, as a header must be.
        let document: Document = signature::parse(&text)?;
        headers.push((SIGNATURE_HEADER, serde_json::to_string(&document)?));
    }
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    client.upload(&format!("plugins?file={}", escaped(&name)), "application/wasm", &headers, bytes).await
}

async fn push_assets(folder: &Path, name: &str, client: &Client) -> anyhow::Result<AssetsUpload> {
    let archive = pack(folder)?;
    client.upload(&format!("assets?name={}", escaped(name)), "application/x-tar", &[], archive).await
}

/// The plain files of a folder as an archive, in order of name.
fn pack(folder: &Path) -> anyhow::Result<Vec<u8>> {
    let mut files = Vec::new();
    gather(folder, Path::new(""), &mut files)?;
    ensure!(!files.is_empty(), "the folder {} holds no file", folder.display());
    files.sort();
    let mut archive = tar::Builder::new(Vec::new());
    let mut room = aether_runtime::Assets::BYTES_MAXIMUM;
    for name in files {
        let path = folder.join(&name);
        let mut content = Vec::new();
        let opened = File::open(&path).with_context(|| format!("the file {} cannot be read", path.display()))?;
        opened.take(room + 1).read_to_end(&mut content)?;
        room = room.checked_sub(content.len() as u64).ok_or(archive::Refused::TooLarge)?;
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, &name, content.as_slice())?;
    }
    Ok(archive.into_inner()?)
}

fn gather(folder: &Path, below: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let here = folder.join(below);
    for entry in fs::read_dir(&here).with_context(|| format!("the folder {} cannot be read", here.display()))? {
        let entry = entry?;
        let name = below.join(entry.file_name());
        // Not followed: what a link points to is not in the folder.
        let kind = entry.file_type()?;
        if kind.is_dir() {
            gather(folder, &name, files)?;
        } else if kind.is_file() {
            ensure!(files.len() < aether_runtime::Assets::FILES_MAXIMUM, archive::Refused::TooMany);
            files.push(name);
        } else {
            bail!("{} is neither a file nor a folder; assets are plain files", folder.join(name).display());
        }
    }
    Ok(())
}

fn tell(uploaded: &UploadedPlugin) {
    let UploadedPlugin { component, is_new, same_version } = uploaded;
    let word = if *is_new { "stored" } else { "was there already" };
    let signed = component.signature.as_ref().map_or_else(
        || "unsigned".to_owned(),
        |signed| format!("signed by {} ({})", signed.key_name, signed.key_id.short()),
    );
    say(&format!(
        "{} {} ({}, {} bytes, {signed}) {word}\n{}",
        component.name,
        component.version,
        component.role.world(),
        component.bytes,
        component.digest
    ));
    if *is_new && !same_version.is_empty() {
        let others: Vec<&str> = same_version.iter().map(Digest::short).collect();
        complain(&format!(
            "Another component calls itself {} {}, too: {}. Slots tell them apart by digest; people may not.",
            component.name,
            component.version,
            others.join(", ")
        ));
    }
}

fn tell_assets(uploaded: &AssetsUpload) {
    let AssetsUpload { assets, is_new } = uploaded;
    let word = if *is_new { "stored" } else { "were there already" };
    say(&format!(
        "assets {} ({} files, {} bytes) {word}\n{}",
        assets.name,
        assets.files.len(),
        assets.bytes,
        assets.digest
    ));
}

fn describe(plugin: &Plugin) {
    let mut lines = vec![
        ("component", format!("{} {}", plugin.description.name, plugin.description.version)),
        ("digest", plugin.digest.0.clone()),
        ("world", plugin.role.world().to_owned()),
        ("bytes", plugin.size_bytes.to_string()),
        ("summary", plugin.description.summary.clone()),
        ("reads", plugin.description.inputs.len().to_string() + " inputs"),
    ];
    let slots: Vec<&str> = plugin.slots.iter().map(|slot| slot.as_str()).collect();
    lines.push(("stands in", if slots.is_empty() { "no slot".into() } else { slots.join(", ") }));
    if let Some(known) = &plugin.registered {
        lines.push(("imports", known.imports.join(", ")));
        let from = match &known.provenance {
            Provenance::Oci { reference, manifest } => format!("{reference} ({manifest})"),
            other => source(other),
        };
        lines.push(("from", from));
        let signed = known
            .signature
            .as_ref()
            .map_or_else(|| "nobody".to_owned(), |signed| format!("{} (key {})", signed.key_name, signed.key_id));
        lines.push(("signed by", signed));
        lines.push(("since", format!("{} by {}", show::time(known.uploaded_at), known.uploaded_by)));
        let needed = if known.needed_by.is_empty() { "nobody".into() } else { known.needed_by.join(", ") };
        lines.push(("needed by", needed));
        if let Some(why) = &known.quarantine {
            let reproducer =
                why.reproducer.as_ref().map_or_else(String::new, |id| format!("; see `aether replay {id}`"));
            let text = format!("{} in {} since {}{reproducer}", why.reason, why.slot, show::time(why.at));
            lines.push(("quarantine", text));
        }
    }
    for (name, text) in lines {
        say(&format!("{name:10} {text}"));
    }
}

async fn gc(dry_run: bool, client: &Client, json: bool) -> anyhow::Result<()> {
    let removed: Vec<Collected> = client.post("plugins/collect-garbage", &CollectGarbage { dry_run }).await?;
    if json {
        return show::json(&removed);
    }
    if removed.is_empty() {
        say("Nothing to remove: all that is kept is needed, new, or among the newest of its name.");
        return Ok(());
    }
    let rows: Vec<_> = removed
        .iter()
        .map(|one| {
            let why = match one.why {
                Why::Old => "not needed for long",
                Why::NoRoom => "no room",
            };
            [
                one.name.clone(),
                one.version.clone(),
                one.digest.short().to_owned(),
                one.bytes.to_string(),
                why.to_owned(),
            ]
        })
        .collect();
    show::table([if dry_run { "WOULD GO" } else { "REMOVED" }, "VERSION", "DIGEST", "BYTES", "WHY"], &rows);
    Ok(())
}

/// The digest of the one that is meant: by its beginning, or the newest of a name.
async fn find(component: &str, client: &Client) -> anyhow::Result<Digest> {
    let plugins: Vec<Plugin> = client.get("plugins").await?;
    if let Some(named) = plugins.iter().find(|plugin| plugin.description.name == component) {
        return Ok(named.digest.clone());
    }
    only(component, plugins.into_iter().map(|plugin| plugin.digest), "component")
}

fn only(beginning: &str, digests: impl Iterator<Item = Digest>, what: &str) -> anyhow::Result<Digest> {
    let mut found = digests.filter(|digest| !beginning.is_empty() && digest.0.starts_with(beginning));
    match (found.next(), found.next()) {
        (Some(digest), None) => Ok(digest),
        (None, _) => bail!("no {what} begins with `{beginning}`, and none has that name"),
        (Some(_), Some(_)) => bail!("several begin with `{beginning}`; write more of the {what}'s digest"),
    }
}
