//! Compiling in a child, and what is kept of it: a component that costs too much costs its uploader an error, and a file
//! that this host did not write is never run.

use crate::guest::{ANSWER, ask, assert_serves, component, scorer};
use aether_core::decision::Limits;
use aether_runtime::{
    Assets, CacheKey, CacheSettings, CompileError, CompileLimits, Compiler, Component, Engine, EngineSettings,
    LoadError, Preparation,
};
use serde_json::Map;
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

fn child(limits: CompileLimits) -> Compiler {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_compile-component"));
    Compiler::Child { program, arguments: vec![], limits }
}

fn engine(compiler: Compiler, cache: Option<CacheSettings>) -> Engine {
    Engine::new(EngineSettings { compiler, cache, ..EngineSettings::default() }).expect("an engine")
}

fn refused(compiler: Compiler, bytes: &[u8]) -> CompileError {
    match engine(compiler, None).load(bytes) {
        Err(LoadError::Compile(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn good() -> Vec<u8> {
    scorer(&format!("i32.const {ANSWER}"))
}

/// A scorer with very many functions, each of which takes the compiler some time.
fn heavy(functions: usize) -> Vec<u8> {
    let body = "(local.set 0 (i32.add (i32.mul (local.get 0) (i32.const 31)) (i32.xor (local.get 0) (i32.const 7))))";
    let one = format!("(func (param i32) (result i32) {} (local.get 0))", body.repeat(200));
    crate::guest::scorer_with("", &format!("i32.const {ANSWER}) {} (func", one.repeat(functions)))
}

#[test]
fn what_a_child_compiles_runs_here() {
    let engine = engine(child(CompileLimits::default()), None);
    let prepared = engine
        .load(&good())
        .expect("loads")
        .activate(&Map::new(), &Limits::default(), &Assets::default())
        .expect("activates");
    assert!(matches!(prepared.preparation(), Preparation::Snapshotted { .. }), "{:?}", prepared.preparation());
    assert_serves(&prepared);
}

#[test]
fn what_does_not_compile_is_told_in_the_compilers_words() {
    // A body that leaves nothing where a number is promised; the encoder that checks is left out.
    let mut bytes = good();
    let at = bytes.windows(2).rposition(|pair| pair == [0x41, 0x80]).expect("`i32.const 2048` begins so");
    bytes[at] = 0xff;
    let error = refused(child(CompileLimits::default()), &bytes);
    assert!(matches!(&error, CompileError::Refused(message) if message.contains("offset")), "{error}");
}

#[test]
fn one_that_takes_too_long_is_stopped() {
    let bytes = heavy(3_000);
    let error = refused(child(CompileLimits { cpu_s: 1, ..CompileLimits::default() }), &bytes);
    assert!(matches!(error, CompileError::Time { seconds: 1 }), "{error}");
    let error = refused(child(CompileLimits { wall: Duration::from_secs(1), ..CompileLimits::default() }), &bytes);
    assert!(matches!(error, CompileError::Time { .. }), "{error}");
    assert_eq!(error.code(), "component.compile-time");
}

#[test]
fn one_that_takes_too_much_memory_is_stopped() {
    let error = refused(child(CompileLimits { memory_bytes: 64 << 20, ..CompileLimits::default() }), &heavy(3_000));
    assert!(matches!(error, CompileError::Memory { .. }), "{error}");
}

#[test]
fn code_beyond_the_limit_is_not_taken() {
    let error = refused(child(CompileLimits { artifact_bytes: 1_000, ..CompileLimits::default() }), &good());
    assert!(matches!(error, CompileError::Size { bytes: 1_000 }), "{error}");
}

#[test]
fn a_compiler_that_is_none_is_told() {
    for (program, told) in [
        ("/nonexistent/compiler", "component.compile-unavailable"),
        // Says nothing and succeeds.
        ("/bin/true", "component.compile-killed"),
        ("/bin/false", "component.compile-killed"),
        // Gives back what it was told.
        ("/bin/cat", "component.compile-killed"),
    ] {
        let compiler = Compiler::Child { program: program.into(), arguments: vec![], limits: CompileLimits::default() };
        assert_eq!(refused(compiler, &good()).code(), told, "{program}");
    }
}

struct Folder {
    folder: tempfile::TempDir,
    bytes: u64,
}

impl Folder {
    fn new(bytes: u64) -> Self {
        Self { folder: tempfile::tempdir().expect("a folder"), bytes }
    }

    fn settings(&self, key: u8) -> Option<CacheSettings> {
        let folder = self.folder.path().join("code");
        Some(CacheSettings { folder, key: CacheKey([key; 32]), bytes: self.bytes })
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = fs::read_dir(self.folder.path().join("code"))
            .expect("the folder is made")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        files.sort();
        files
    }
}

/// Loads with a compiler that is not there: what loads was in the cache.
fn from_cache(folder: &Folder, key: u8, bytes: &[u8]) -> Result<Component, LoadError> {
    let nobody =
        Compiler::Child { program: "/nonexistent".into(), arguments: vec![], limits: CompileLimits::default() };
    engine(nobody, folder.settings(key)).load(bytes)
}

#[test]
fn what_was_compiled_is_kept_for_the_next_process() {
    let folder = Folder::new(1 << 30);
    assert!(from_cache(&folder, 1, &good()).is_err());
    engine(Compiler::InProcess, folder.settings(1)).load(&good()).expect("loads");
    assert_eq!(folder.files().len(), 1);
    // Activating compiles the snapshot, which is kept as well.
    let prepare = |engine: Engine| {
        let component = engine.load(&good()).expect("loads");
        component.activate(&Map::new(), &Limits::default(), &Assets::default())
    };
    let made = prepare(engine(Compiler::InProcess, folder.settings(1))).expect("activates");
    assert_eq!(folder.files().len(), 2);
    let component = from_cache(&folder, 1, &good()).expect("loads from the cache");
    let again = component.activate(&Map::new(), &Limits::default(), &Assets::default()).expect("from the cache, too");
    assert_eq!(again.preparation(), made.preparation());
    assert_eq!(ask(&again).fuel, ask(&made).fuel);
    assert_serves(&again);
}

/// One way of spoiling the file of a component.
type Spoil = fn(&Path);

#[test]
fn a_file_that_is_not_ours_is_never_run() {
    let spoils: [(&str, Spoil); 7] = [
        ("a bit of the code", |path| {
            let mut bytes = fs::read(path).expect("the file");
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            fs::write(path, bytes).expect("written");
        }),
        ("a bit of the seal", |path| {
            let mut bytes = fs::read(path).expect("the file");
            bytes[20] ^= 1;
            fs::write(path, bytes).expect("written");
        }),
        ("cut short", |path| {
            let bytes = fs::read(path).expect("the file");
            fs::write(path, &bytes[..bytes.len() / 2]).expect("written");
        }),
        ("empty", |path| fs::write(path, b"").expect("written")),
        ("made longer", |path| {
            let mut bytes = fs::read(path).expect("the file");
            bytes.extend_from_slice(b"more");
            fs::write(path, bytes).expect("written");
        }),
        ("a link to a good one", |path| {
            let elsewhere = path.with_extension("elsewhere");
            fs::rename(path, &elsewhere).expect("moved");
            std::os::unix::fs::symlink(elsewhere, path).expect("linked");
        }),
        ("another component's", |path| {
            let folder = path.parent().and_then(Path::parent).expect("the test's folder").join("other");
            let settings = Some(CacheSettings { folder: folder.clone(), key: CacheKey([1; 32]), bytes: 1 << 30 });
            let other = component("risk-scorer", &crate::guest::module("", "unreachable", "i32.const 128"));
            engine(Compiler::InProcess, settings).load(&other).expect("loads");
            let file = fs::read_dir(folder).expect("made").next().expect("one file").expect("an entry").path();
            fs::copy(file, path).expect("copied");
        }),
    ];
    for (name, spoil) in spoils {
        let folder = Folder::new(1 << 30);
        engine(Compiler::InProcess, folder.settings(1)).load(&good()).expect("loads");
        let path = folder.files().remove(0);
        spoil(&path);
        assert!(from_cache(&folder, 1, &good()).is_err(), "{name} was used");
        assert!(fs::symlink_metadata(&path).is_err(), "{name} is still there");
        engine(Compiler::InProcess, folder.settings(1)).load(&good()).expect("compiled anew");
        from_cache(&folder, 1, &good()).expect("and kept again");
    }
}

#[test]
fn another_hosts_key_does_not_open_it() {
    let folder = Folder::new(1 << 30);
    engine(Compiler::InProcess, folder.settings(1)).load(&good()).expect("loads");
    assert!(from_cache(&folder, 2, &good()).is_err());
}

#[test]
fn the_oldest_go_when_there_is_too_much() {
    let folder = Folder::new(1 << 30);
    engine(Compiler::InProcess, folder.settings(1)).load(&good()).expect("loads");
    let one = fs::metadata(&folder.files()[0]).expect("a file").len();
    let folder = Folder::new(one + one / 2);
    let all: Vec<Vec<u8>> = (0..3).map(|i| scorer(&format!("(drop (i32.const {i})) i32.const {ANSWER}"))).collect();
    for bytes in &all {
        engine(Compiler::InProcess, folder.settings(1)).load(bytes).expect("loads");
    }
    assert_eq!(folder.files().len(), 1);
    from_cache(&folder, 1, &all[2]).expect("the newest is kept");
}
