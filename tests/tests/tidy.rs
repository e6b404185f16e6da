//! The house rules that no compiler checks. Every finding names the file, the line and what to do.

use std::fs;
use std::path::{Path, PathBuf};

/// A file longer than this hides something.
const LINES_MAX: usize = 800;
/// Folders of the workspace that hold sources.
const FOLDERS: [&str; 6] = ["app-cli", "multipath", "storage-mapping", "tests", "transfer-core", "volume"];

struct Source {
    name: String,
    text: String,
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package lies in the workspace").to_owned()
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target" && name != ".git") {
                collect(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn sources() -> Vec<Source> {
    let root = workspace();
    let mut paths = Vec::new();
    FOLDERS.iter().for_each(|folder| collect(&root.join(folder), &mut paths));
    paths.sort();
    assert!(paths.len() > 50, "the sources are where this test looks");
    let name = |path: &Path| path.strip_prefix(&root).expect("below the root").display().to_string();
    let read = |path: &PathBuf| fs::read_to_string(path).expect("sources are text");
    paths.iter().map(|path| Source { name: name(path), text: read(path) }).collect()
}

/// Applies `rule` to every line; what it gives is what to do.
fn check_lines(rule: impl Fn(&Source, &str) -> Option<String>) {
    let mut findings = Vec::new();
    for source in sources() {
        for (number, line) in (1..).zip(source.text.lines()) {
            if let Some(advice) = rule(&source, line) {
                findings.push(format!("{}:{number}: {advice}", source.name));
            }
        }
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}

#[test]
fn every_file_says_what_it_is() {
    let silent = |source: &Source| !source.text.starts_with("//! ");
    let found: Vec<_> = sources().into_iter().filter(silent).map(|source| source.name).collect();
    assert!(found.is_empty(), "begin with `//!` and say what the file is: {found:?}");
}

#[test]
fn nothing_is_left_to_do() {
    // Put together here, so that this file does not find itself.
    let marks = [["TO", "DO"].concat(), ["FIX", "ME"].concat()];
    check_lines(|_, line| {
        let mark = marks.iter().find(|mark| line.contains(mark.as_str()))?;
        Some(format!("{mark}: do it, or open an issue and say in a sentence what holds today"))
    });
}

#[test]
fn unsafe_code_is_in_the_storage_mapping_only() {
    let starts =
        ["{", "fn", "impl", "trait", "extern"].map(|next| format!("{} {next}", ["un", "safe"].concat()));
    check_lines(|source, line| {
        let code = line.split("//").next().unwrap_or_default();
        let found = starts.iter().any(|start| code.contains(start.as_str()));
        (found && !source.name.starts_with("storage-mapping/"))
            .then(|| "unsafe code belongs into storage-mapping".to_owned())
    });
}

#[test]
fn no_file_is_too_long() {
    let long = |source: &Source| source.text.lines().count() > LINES_MAX;
    let found: Vec<_> = sources().into_iter().filter(long).map(|source| source.name).collect();
    assert!(found.is_empty(), "split at a seam: {found:?}");
}

#[test]
fn no_path_of_one_machine() {
    let roots = ["home", "root", "work", "Users"].map(|root| format!("\"/{root}/"));
    check_lines(|_, line| {
        let root = roots.iter().find(|root| line.contains(root.as_str()))?;
        Some(format!("{}: a path of one machine; take a scratch folder or a configured one", &root[1..]))
    });
}
