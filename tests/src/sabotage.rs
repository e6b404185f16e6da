//! The table of deliberately broken builds: what each one takes out of the sources, and who must notice.
//!
//! A guard that nobody misses when it is gone is no guard. Each row of `tests/sabotage.toml` has other texts
//! for exact texts of the sources. All of them go into one copy, behind switches (a variable of the
//! environment says which row is on), so that one build serves every row. Keeps true: a text that does not
//! stand in its file exactly once is an error, so that a guard that moved is noticed. Not here: building and
//! running (the program `sabotage`).

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use thiserror::Error;
use toml::Table;

/// A text that takes another's place.
#[derive(Clone, Debug)]
pub struct Edit {
    /// File, below the workspace.
    pub file: String,
    /// What stands there, exactly once.
    pub old: String,
    /// What takes its place.
    pub new: String,
}

/// Who must notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Catcher {
    /// The simulator, within its seeds.
    Seeds,
    /// The simulator, where hosts lose their power again and again.
    PowerLosses,
    /// A test: arguments of `cargo test`.
    Test(Vec<String>),
    /// Nobody: another guard still holds, as the row says why.
    Nobody(String),
}

/// One broken build.
#[derive(Clone, Debug)]
pub struct Sabotage {
    /// Short name.
    pub name: String,
    /// What is taken away, in words.
    pub guard: String,
    /// The rule of the protocol, if it has one.
    pub rule: String,
    /// The replacements.
    pub edits: Vec<Edit>,
    /// Who must notice.
    pub catcher: Catcher,
}

/// What is wrong with the table.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SabotageError {
    /// A file cannot be read.
    #[error("{path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// The table is no TOML.
    #[error("the table")]
    Syntax(#[from] toml::de::Error),
    /// A row lacks something, or has too much.
    #[error("row {name}: {what}")]
    Row {
        /// Its name.
        name: String,
        /// What.
        what: String,
    },
    /// A guard is not where the table says.
    #[error("row {name}: {file} has {count} times, not once: {old}")]
    Moved {
        /// Name of the row.
        name: String,
        /// Where it should be.
        file: String,
        /// How often it is there.
        count: usize,
        /// The text.
        old: String,
    },
}

/// Where the workspace of this package lies.
///
/// # Panics
/// Never: a package lies in a folder.
#[must_use]
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package lies in the workspace").to_owned()
}

/// Reads the table of a workspace.
///
/// # Errors
/// See [`SabotageError`].
pub fn load(workspace: &Path) -> Result<Vec<Sabotage>, SabotageError> {
    let table: Table = read(&workspace.join("tests/sabotage.toml"))?.parse()?;
    let rows = table.get("build").and_then(toml::Value::as_array).map(Vec::as_slice).unwrap_or_default();
    rows.iter().map(|row| parse_row(row.as_table().unwrap_or(&Table::new()))).collect()
}

fn parse_row(row: &Table) -> Result<Sabotage, SabotageError> {
    let text = |table: &Table, key: &str| table.get(key)?.as_str().map(str::to_owned);
    let name = text(row, "name").unwrap_or_default();
    let wrong = |what: &str| SabotageError::Row { name: name.clone(), what: what.to_owned() };
    let edits = row.get("edit").and_then(toml::Value::as_array).ok_or_else(|| wrong("no edit"))?;
    let edits = edits.iter().map(|edit| {
        let edit = edit.as_table().ok_or_else(|| wrong("an edit is a table"))?;
        let part = |key| text(edit, key).ok_or_else(|| wrong("an edit has file, old and new"));
        Ok(Edit { file: part("file")?, old: part("old")?, new: part("new")? })
    });
    let words = |args: String| args.split_whitespace().map(str::to_owned).collect();
    let catcher = match (text(row, "by").as_deref(), text(row, "test"), text(row, "why")) {
        (Some("seeds"), None, None) => Catcher::Seeds,
        (Some("power losses"), None, None) => Catcher::PowerLosses,
        (Some("test"), Some(args), None) => Catcher::Test(words(args)),
        (Some("nobody"), None, Some(why)) => Catcher::Nobody(why),
        _ => return Err(wrong("by is seeds, power losses, test with a test, or nobody with a why")),
    };
    let edits = edits.collect::<Result<_, SabotageError>>()?;
    let guard = text(row, "guard").ok_or_else(|| wrong("no guard"))?;
    let rule = text(row, "rule").unwrap_or_default();
    Ok(Sabotage { name, guard, rule, edits, catcher })
}

/// The crate below all others, which carries the switch, and where it goes in the copy.
const SWITCH_FILE: &str = "storage-mapping/src/lib.rs";
/// The variable that says which row is on, by its number from 1.
pub const SWITCH_VARIABLE: &str = "DISKWIRE_SABOTAGE";
const SWITCH: &str = r#"
/// Whether one of these rows of the table of broken builds is on.
#[must_use]
pub fn sabotaged(rows: &[u32]) -> bool {
    static ROW: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    let row = || std::env::var("DISKWIRE_SABOTAGE").ok().and_then(|row| row.parse().ok());
    rows.contains(ROW.get_or_init(|| row().unwrap_or(0)))
}
"#;

/// A text of a file, and what takes its place in which rows.
struct Spot<'a> {
    start: usize,
    old: &'a str,
    /// Each other text with the numbers of its rows.
    new: Vec<(&'a str, Vec<usize>)>,
}

/// The files of the workspace with every row's texts behind switches: name and text of each.
///
/// # Errors
/// If a text is not there exactly once, or two of them overlap.
pub fn switched(rows: &[Sabotage], workspace: &Path) -> Result<BTreeMap<String, String>, SabotageError> {
    let mut files: BTreeMap<&str, (String, Vec<Spot<'_>>)> = BTreeMap::new();
    for (row, number) in rows.iter().zip(1..) {
        for edit in &row.edits {
            if !files.contains_key(edit.file.as_str()) {
                files.insert(&edit.file, (read(&workspace.join(&edit.file))?, Vec::new()));
            }
            let (text, spots) = files.get_mut(edit.file.as_str()).expect("it was read just now");
            let count = text.matches(&edit.old).count();
            let start = text.find(&edit.old).filter(|_| count == 1).ok_or_else(|| SabotageError::Moved {
                name: row.name.clone(),
                file: edit.file.clone(),
                count,
                old: edit.old.clone(),
            })?;
            let overlaps =
                |spot: &&Spot<'_>| spot.start < start + edit.old.len() && start < spot.start + spot.old.len();
            match spots.iter().find(overlaps).map(|spot| (spot.start, spot.old)) {
                Some(same) if same != (start, &edit.old) => {
                    let what = format!("its text overlaps another row's: {}", edit.old);
                    return Err(SabotageError::Row { name: row.name.clone(), what });
                }
                Some(_) => {}
                None => spots.push(Spot { start, old: &edit.old, new: Vec::new() }),
            }
            let spot = spots.iter_mut().find(|spot| spot.start == start).expect("it is there now");
            match spot.new.iter_mut().find(|(new, _)| *new == edit.new) {
                Some((_, numbers)) => numbers.push(number),
                None => spot.new.push((&edit.new, vec![number])),
            }
        }
    }
    let mut result: BTreeMap<String, String> = files
        .into_iter()
        .map(|(file, (text, spots))| (file.to_owned(), with_switches(text, spots)))
        .collect();
    let switch = match result.remove(SWITCH_FILE) {
        Some(text) => text + SWITCH,
        None => read(&workspace.join(SWITCH_FILE))? + SWITCH,
    };
    result.insert(SWITCH_FILE.to_owned(), switch);
    Ok(result)
}

/// What ends with a semicolon are statements, all else is an expression.
fn with_switches(mut text: String, mut spots: Vec<Spot<'_>>) -> String {
    spots.sort_by_key(|spot| std::cmp::Reverse(spot.start));
    for Spot { start, old, new } in spots {
        let mut switch = String::new();
        for (new, rows) in new {
            switch.push_str(&format!("if storage_mapping::sabotaged(&{rows:?}) {{ {new} }} else "));
        }
        switch.push_str(&format!("{{ {old} }}"));
        if !old.ends_with(';') {
            switch = format!("({switch})");
        }
        text.replace_range(start..start + old.len(), &switch);
    }
    text
}

/// Makes or refreshes a copy of the tracked files of a workspace, some with other texts. What is the same
/// already keeps its time, so that little is built again; what is no longer tracked goes, and `target` stays.
///
/// # Errors
/// If git, or the file system, fails.
pub fn copy_workspace(from: &Path, to: &Path, changed: &BTreeMap<String, String>) -> io::Result<()> {
    let listed = Command::new("git").arg("ls-files").current_dir(from).output()?;
    let listed = String::from_utf8_lossy(&listed.stdout);
    remove_others(to, &listed.lines().map(|name| to.join(name)).collect())?;
    for name in listed.lines() {
        let there = to.join(name);
        let bytes = changed.get(name).map(|text| text.clone().into_bytes());
        let Some(bytes) = bytes.or_else(|| fs::read(from.join(name)).ok()) else { continue };
        if fs::read(&there).is_ok_and(|old| old == bytes) {
            continue;
        }
        fs::create_dir_all(there.parent().unwrap_or(to))?;
        fs::write(&there, bytes)?;
    }
    Ok(())
}

/// Removes the files of a folder that are not among these.
fn remove_others(folder: &Path, wanted: &BTreeSet<PathBuf>) -> io::Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            if path.file_name() != Some(OsStr::new("target")) {
                remove_others(&path, wanted)?;
            }
        } else if !wanted.contains(&path) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<String, SabotageError> {
    fs::read_to_string(path).map_err(|error| SabotageError::Read { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_longer_there_goes_from_the_copy() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        for name in ["src/kept.rs", "src/moved.rs", "target/built", "Cargo.toml"] {
            fs::create_dir_all(at(name).parent().expect("it is below the folder")).expect("made");
            fs::write(at(name), "x").expect("written");
        }
        let wanted = [at("src/kept.rs"), at("Cargo.toml")].into();
        remove_others(folder.path(), &wanted).expect("removed");
        let there =
            ["src/kept.rs", "src/moved.rs", "target/built", "Cargo.toml"].map(|name| at(name).exists());
        assert_eq!(there, [true, false, true, true]);
        remove_others(&at("nowhere"), &wanted).expect("a first copy has no folder yet");
    }
}
