//! What a source file looks like: it says why it exists, and it can be read in one sitting.
//!
//! Folders that hold build outputs, installed packages or generated code are not entered.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A file longer than this hides structure that a folder of modules would show.
const MAX_LINES: usize = 800;

/// Files that may be longer, each with its reason. One that no longer needs it breaks the rule.
const LONG: &[(&str, &str)] = &[];

/// Folders, relative to the root or by name, that hold nothing written by hand.
const SKIPPED_NAMES: &[&str] = &["target", "node_modules", "dist", "build", "generated"];

/// One source file, its path relative to the root.
struct Source {
    path: String,
    text: String,
}

pub(super) fn check(root: &Path) -> Result<Vec<String>> {
    let mut paths = Vec::new();
    collect(root, &mut paths).with_context(|| format!("reading {}", root.display()))?;
    paths.sort();
    let mut sources = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let path = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        sources.push(Source { path, text });
    }
    Ok(broken(&sources, LONG))
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let kind = entry.file_type()?;
        if kind.is_dir() && !name.starts_with('.') && !SKIPPED_NAMES.contains(&name.as_ref()) {
            collect(&entry.path(), found)?;
        } else if kind.is_file() && [".rs", ".ts", ".tsx"].iter().any(|end| name.ends_with(end)) {
            found.push(entry.path());
        }
    }
    Ok(())
}

fn broken(sources: &[Source], long: &[(&str, &str)]) -> Vec<String> {
    let mut broken = Vec::new();
    for Source { path, text } in sources {
        let lines = text.lines().count();
        if lines > MAX_LINES && !long.iter().any(|(known, _)| known == path) {
            broken.push(format!("{path}: {lines} lines; split it by what changes together (at most {MAX_LINES})"));
        }
        if path.ends_with(".rs") && !says_why(text) {
            broken.push(format!("{path}: has no `//!`; say why the module exists and what it does not do"));
        }
    }
    for (path, _) in long {
        let needs = sources.iter().any(|source| source.path == *path && source.text.lines().count() > MAX_LINES);
        if !needs {
            broken.push(format!("{path}: is listed as long and is not; take it off the list"));
        }
    }
    broken
}

/// Whether the first thing in the file, inner attributes aside, is its module documentation.
fn says_why(text: &str) -> bool {
    text.lines()
        .map(str::trim)
        .find(|line| !line.is_empty() && !line.starts_with("#![") && !line.starts_with("#!/"))
        .is_some_and(|line| line.starts_with("//!") && line.len() > "//!".len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(path: &str, text: &str, long: &[(&str, &str)]) -> usize {
        broken(&[Source { path: path.to_owned(), text: text.to_owned() }], long).len()
    }

    #[test]
    fn a_module_says_why_it_exists() {
        assert_eq!(told("a.rs", "//! Reads the clock.\n", &[]), 0);
        assert_eq!(told("a.rs", "#![no_main]\n\n//! Reads the clock.\n", &[]), 0);
        assert_eq!(told("a.rs", "use std::fs;\n//! Too late.\n", &[]), 1);
        assert_eq!(told("a.rs", "//!\nfn f() {}\n", &[]), 1);
        assert_eq!(told("a.rs", "", &[]), 1);
        assert_eq!(told("a.tsx", "export {};\n", &[]), 0);
    }

    #[test]
    fn a_long_file_needs_a_reason_and_loses_it_when_it_is_short_again() {
        let long = "// line\n".repeat(MAX_LINES + 1);
        let listed = [("a.ts", "generated")];
        assert_eq!(told("a.ts", &long, &[]), 1);
        assert_eq!(told("a.ts", &long, &listed), 0);
        assert_eq!(told("a.ts", "// line\n", &listed), 1);
        assert_eq!(told("b.ts", "// line\n", &listed), 1);
    }

    #[test]
    fn outputs_and_installed_packages_are_not_read() {
        let root = tempfile::tempdir().unwrap();
        for path in ["src/a.rs", "target/b.rs", "ui/node_modules/c.ts", ".git/d.rs", "ui/src/e.tsx", "f.md"] {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let told = check(root.path()).unwrap();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with("src/a.rs: has no"));
    }
}
