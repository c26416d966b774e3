//! `wasi:filesystem`: one folder, `/assets`, that holds the assets and cannot be changed. No links, no times, no way up.

use crate::{
    Assets,
    host::State,
    wasi::{
        bindings::wasi::{
            clocks::wall_clock::Datetime,
            filesystem::{
                preopens,
                types::{
                    self, Advice, DescriptorFlags, DescriptorStat, DescriptorType, DirectoryEntry, ErrorCode,
                    MetadataHashValue, NewTimestamp, OpenFlags, PathFlags,
                },
            },
        },
        io::{Input, Output, capped},
    },
};
use std::sync::Arc;
use wasmtime::component::Resource;

/// Where a guest finds the assets.
const ROOT: &str = "/assets";
/// As Linux has it.
const PATH_BYTES_MAXIMUM: usize = 4_096;
const EPOCH: Datetime = Datetime { seconds: 0, nanoseconds: 0 };

/// An open file or folder, known by its path below the root; the root's is empty.
#[derive(Clone, PartialEq)]
#[allow(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct Descriptor {
    path: String,
    /// None: it is a folder.
    bytes: Option<Arc<[u8]>>,
}

/// How far a guest has read a folder.
#[allow(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct Entries {
    path: String,
    next: usize,
}

type Answer<T> = wasmtime::Result<Result<T, ErrorCode>>;

impl Descriptor {
    fn root() -> Self {
        Self { path: String::new(), bytes: None }
    }

    fn find(assets: &Assets, path: String) -> Option<Self> {
        match assets.get(&path) {
            Some(bytes) => Some(Self { path, bytes: Some(Arc::clone(bytes)) }),
            None => assets.folder(&path).is_some().then_some(Self { path, bytes: None }),
        }
    }

    /// What `path` names from here. It may go up, but not above where it began, whichever folder that is.
    fn at(&self, assets: &Assets, path: &str) -> Result<Self, ErrorCode> {
        if path.len() > PATH_BYTES_MAXIMUM {
            return Err(ErrorCode::NameTooLong);
        }
        if path.is_empty() {
            return Err(ErrorCode::NoEntry);
        }
        if path.starts_with('/') {
            return Err(ErrorCode::NotPermitted);
        }
        let mut here = self.clone();
        let mut depth = 0_usize;
        for part in path.split('/') {
            if here.bytes.is_some() {
                return Err(ErrorCode::NotDirectory);
            }
            let path = match part {
                "" | "." => continue,
                ".." => {
                    depth = depth.checked_sub(1).ok_or(ErrorCode::NotPermitted)?;
                    here.path.rsplit_once('/').map_or("", |(above, _)| above).to_owned()
                }
                name => {
                    depth += 1;
                    if here.path.is_empty() { name.to_owned() } else { format!("{}/{name}", here.path) }
                }
            };
            here = Self::find(assets, path).ok_or(ErrorCode::NoEntry)?;
        }
        Ok(here)
    }

    fn file(&self) -> Result<&Arc<[u8]>, ErrorCode> {
        self.bytes.as_ref().ok_or(ErrorCode::IsDirectory)
    }

    fn kind(&self) -> DescriptorType {
        if self.bytes.is_some() { DescriptorType::RegularFile } else { DescriptorType::Directory }
    }

    fn stat(&self) -> DescriptorStat {
        DescriptorStat {
            type_: self.kind(),
            link_count: 1,
            size: self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64),
            data_access_timestamp: Some(EPOCH),
            data_modification_timestamp: Some(EPOCH),
            status_change_timestamp: Some(EPOCH),
        }
    }

    /// Of the path within this very set of assets, whose digest covers the content.
    fn hash(&self, assets: &Assets) -> MetadataHashValue {
        let set = assets.digest().map_or("", |digest| &digest.0);
        let mut hasher = blake3::Hasher::new_derive_key("aether-runtime 2026-11-21 wasi:filesystem metadata-hash");
        hasher.update(set.as_bytes()).update(b"/").update(self.path.as_bytes());
        let mut stream = hasher.finalize_xof();
        let mut number = || {
            let mut bytes = [0; 8];
            stream.fill(&mut bytes);
            u64::from_le_bytes(bytes)
        };
        MetadataHashValue { lower: number(), upper: number() }
    }
}

impl State {
    fn descriptor(&mut self, this: &Resource<Descriptor>) -> wasmtime::Result<(&Descriptor, &Assets)> {
        let wasi = self.wasi()?;
        Ok((wasi.table.get(this)?, &wasi.assets))
    }

    fn found(&mut self, this: &Resource<Descriptor>, path: &str) -> Answer<Descriptor> {
        let (descriptor, assets) = self.descriptor(this)?;
        Ok(descriptor.at(assets, path))
    }

    /// Whatever would change something.
    fn refused<T>(&mut self, this: &Resource<Descriptor>) -> Answer<T> {
        self.descriptor(this)?;
        Ok(Err(ErrorCode::ReadOnly))
    }
}

impl preopens::Host for State {
    fn get_directories(&mut self) -> wasmtime::Result<Vec<(Resource<Descriptor>, String)>> {
        self.wasi()?;
        Ok(vec![(self.hand(Descriptor::root())?, ROOT.to_owned())])
    }
}

impl types::Host for State {
    fn filesystem_error_code(&mut self, _: Resource<crate::wasi::Never>) -> wasmtime::Result<Option<ErrorCode>> {
        self.wasi()?;
        Ok(None)
    }
}

impl types::HostDescriptor for State {
    fn read_via_stream(&mut self, this: Resource<Descriptor>, offset: u64) -> Answer<Resource<Input>> {
        let bytes = match self.descriptor(&this)?.0.file() {
            Ok(bytes) => Arc::clone(bytes),
            Err(code) => return Ok(Err(code)),
        };
        self.hand(Input::new(bytes, offset)).map(Ok)
    }

    fn write_via_stream(&mut self, this: Resource<Descriptor>, _: u64) -> Answer<Resource<Output>> {
        self.refused(&this)
    }

    fn append_via_stream(&mut self, this: Resource<Descriptor>) -> Answer<Resource<Output>> {
        self.refused(&this)
    }

    fn advise(&mut self, this: Resource<Descriptor>, _: u64, _: u64, _: Advice) -> Answer<()> {
        Ok(self.descriptor(&this)?.0.file().map(|_| ()))
    }

    fn sync_data(&mut self, this: Resource<Descriptor>) -> Answer<()> {
        self.descriptor(&this)?;
        Ok(Ok(()))
    }

    fn get_flags(&mut self, this: Resource<Descriptor>) -> Answer<DescriptorFlags> {
        self.descriptor(&this)?;
        Ok(Ok(DescriptorFlags::READ))
    }

    fn get_type(&mut self, this: Resource<Descriptor>) -> Answer<DescriptorType> {
        Ok(Ok(self.descriptor(&this)?.0.kind()))
    }

    fn set_size(&mut self, this: Resource<Descriptor>, _: u64) -> Answer<()> {
        self.refused(&this)
    }

    fn set_times(&mut self, this: Resource<Descriptor>, _: NewTimestamp, _: NewTimestamp) -> Answer<()> {
        self.refused(&this)
    }

    fn read(&mut self, this: Resource<Descriptor>, length: u64, offset: u64) -> Answer<(Vec<u8>, bool)> {
        let bytes = match self.descriptor(&this)?.0.file() {
            Ok(bytes) => bytes,
            Err(code) => return Ok(Err(code)),
        };
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let rest = &bytes[from..];
        let read = capped(length).min(rest.len());
        Ok(Ok((rest[..read].to_vec(), read == rest.len())))
    }

    fn write(&mut self, this: Resource<Descriptor>, _: Vec<u8>, _: u64) -> Answer<u64> {
        self.refused(&this)
    }

    fn read_directory(&mut self, this: Resource<Descriptor>) -> Answer<Resource<Entries>> {
        let descriptor = self.descriptor(&this)?.0;
        if descriptor.bytes.is_some() {
            return Ok(Err(ErrorCode::NotDirectory));
        }
        let path = descriptor.path.clone();
        self.hand(Entries { path, next: 0 }).map(Ok)
    }

    fn sync(&mut self, this: Resource<Descriptor>) -> Answer<()> {
        self.sync_data(this)
    }

    fn create_directory_at(&mut self, this: Resource<Descriptor>, _: String) -> Answer<()> {
        self.refused(&this)
    }

    fn stat(&mut self, this: Resource<Descriptor>) -> Answer<DescriptorStat> {
        Ok(Ok(self.descriptor(&this)?.0.stat()))
    }

    fn stat_at(&mut self, this: Resource<Descriptor>, _: PathFlags, path: String) -> Answer<DescriptorStat> {
        Ok(self.found(&this, &path)?.map(|found| found.stat()))
    }

    fn set_times_at(
        &mut self,
        this: Resource<Descriptor>,
        _: PathFlags,
        _: String,
        _: NewTimestamp,
        _: NewTimestamp,
    ) -> Answer<()> {
        self.refused(&this)
    }

    fn link_at(
        &mut self,
        this: Resource<Descriptor>,
        _: PathFlags,
        _: String,
        _: Resource<Descriptor>,
        _: String,
    ) -> Answer<()> {
        self.refused(&this)
    }

    fn open_at(
        &mut self,
        this: Resource<Descriptor>,
        _: PathFlags,
        path: String,
        open_flags: OpenFlags,
        flags: DescriptorFlags,
    ) -> Answer<Resource<Descriptor>> {
        let changes = flags.contains(DescriptorFlags::WRITE) || open_flags.contains(OpenFlags::TRUNCATE);
        let code = match self.found(&this, &path)? {
            Ok(_) if open_flags.contains(OpenFlags::CREATE | OpenFlags::EXCLUSIVE) => ErrorCode::Exist,
            Ok(_) if changes => ErrorCode::ReadOnly,
            Ok(found) if open_flags.contains(OpenFlags::DIRECTORY) && found.bytes.is_some() => ErrorCode::NotDirectory,
            Ok(found) => return self.hand(found).map(Ok),
            Err(ErrorCode::NoEntry) if open_flags.contains(OpenFlags::CREATE) => ErrorCode::ReadOnly,
            Err(code) => code,
        };
        Ok(Err(code))
    }

    fn readlink_at(&mut self, this: Resource<Descriptor>, path: String) -> Answer<String> {
        // What is there is no link.
        Ok(self.found(&this, &path)?.and(Err(ErrorCode::Invalid)))
    }

    fn remove_directory_at(&mut self, this: Resource<Descriptor>, _: String) -> Answer<()> {
        self.refused(&this)
    }

    fn rename_at(&mut self, this: Resource<Descriptor>, _: String, _: Resource<Descriptor>, _: String) -> Answer<()> {
        self.refused(&this)
    }

    fn symlink_at(&mut self, this: Resource<Descriptor>, _: String, _: String) -> Answer<()> {
        self.refused(&this)
    }

    fn unlink_file_at(&mut self, this: Resource<Descriptor>, _: String) -> Answer<()> {
        self.refused(&this)
    }

    fn is_same_object(&mut self, this: Resource<Descriptor>, other: Resource<Descriptor>) -> wasmtime::Result<bool> {
        let table = &self.wasi()?.table;
        Ok(table.get(&this)?.path == table.get(&other)?.path)
    }

    fn metadata_hash(&mut self, this: Resource<Descriptor>) -> Answer<MetadataHashValue> {
        let (descriptor, assets) = self.descriptor(&this)?;
        Ok(Ok(descriptor.hash(assets)))
    }

    fn metadata_hash_at(
        &mut self,
        this: Resource<Descriptor>,
        _: PathFlags,
        path: String,
    ) -> Answer<MetadataHashValue> {
        let (descriptor, assets) = self.descriptor(&this)?;
        Ok(descriptor.at(assets, &path).map(|found| found.hash(assets)))
    }

    fn drop(&mut self, this: Resource<Descriptor>) -> wasmtime::Result<()> {
        self.take(this)
    }
}

impl types::HostDirectoryEntryStream for State {
    fn read_directory_entry(&mut self, this: Resource<Entries>) -> Answer<Option<DirectoryEntry>> {
        let wasi = self.wasi()?;
        let entries = wasi.table.get_mut(&this)?;
        let child = wasi.assets.folder(&entries.path).and_then(|children| children.get(entries.next));
        entries.next += 1;
        Ok(Ok(child.map(|child| DirectoryEntry {
            type_: if child.is_folder { DescriptorType::Directory } else { DescriptorType::RegularFile },
            name: child.name.clone(),
        })))
    }

    fn drop(&mut self, this: Resource<Entries>) -> wasmtime::Result<()> {
        self.take(this)
    }
}
