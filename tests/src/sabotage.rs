//! The table of deliberately broken builds: what each one takes out of the sources, and who must notice.
//!
//! A guard that no test misses when it is gone is no guard. Each row of `tests/sabotage.toml` replaces exact
//! texts by others; keeps true: a text that does not stand in its file exactly once is an error, so that a
//! guard that moved is noticed. Not here: building and running (the program `sabotage`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

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

impl Sabotage {
    /// The changed files: name and text of each.
    ///
    /// # Errors
    /// If a text is not there exactly once.
    pub fn apply(&self, workspace: &Path) -> Result<Vec<(String, String)>, SabotageError> {
        let mut files: Vec<(String, String)> = Vec::new();
        for edit in &self.edits {
            let index = match files.iter().position(|(file, _)| *file == edit.file) {
                Some(index) => index,
                None => {
                    files.push((edit.file.clone(), read(&workspace.join(&edit.file))?));
                    files.len() - 1
                }
            };
            let count = files[index].1.matches(&edit.old).count();
            if count != 1 {
                let (name, file, old) = (self.name.clone(), edit.file.clone(), edit.old.clone());
                return Err(SabotageError::Moved { name, file, count, old });
            }
            files[index].1 = files[index].1.replacen(&edit.old, &edit.new, 1);
        }
        Ok(files)
    }
}

fn read(path: &Path) -> Result<String, SabotageError> {
    fs::read_to_string(path).map_err(|error| SabotageError::Read { path: path.to_owned(), error })
}
