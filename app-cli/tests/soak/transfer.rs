//! One transfer of the soak: its sources, its command line, and what must have arrived at the end.
//!
//! What holds: everything about a transfer follows from the numbers it was planned with; the sources do
//! not change before it is done; each target name belongs to one slot, so that no two transfers want
//! different contents under one name at once. Not here: when commands run, and what happens to them.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use blake3::Hash;

use crate::support::{Lab, Numbers, Running, hash_of, write_random};
use crate::watch::{Watch, hash_of_link};

/// Names that a slot uses in turn: the later transfers replace what the earlier ones delivered.
const NAMES: u64 = 3;
/// Files of a tree, at most; each is there in every version.
const TREE_FILES_MAX: u64 = 24;

/// What is copied, and which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Push,
    Pull,
    StreamIn,
    StreamOut,
    TreePush,
    TreePull,
}

impl Kind {
    fn draw(numbers: &mut Numbers) -> Self {
        match numbers.below(10) {
            0..=2 => Self::Push,
            3 | 4 => Self::Pull,
            5 => Self::StreamIn,
            6 => Self::StreamOut,
            7 | 8 => Self::TreePush,
            _ => Self::TreePull,
        }
    }

    fn is_tree(self) -> bool {
        matches!(self, Self::TreePush | Self::TreePull)
    }
}

/// Who copies with whom.
pub(crate) struct Pair<'a> {
    /// All hosts.
    pub(crate) hosts: &'a [String],
    /// The one of the command.
    pub(crate) from: usize,
    /// The one whose `serve` answers.
    pub(crate) to: usize,
    /// The slot: no two have the same.
    pub(crate) slot: usize,
}

/// A transfer that is to be carried through.
pub(crate) struct Transfer {
    kind: Kind,
    host: String,
    arguments: Vec<String>,
    source: PathBuf,
    /// Final names and their contents.
    delivers: Vec<(PathBuf, Hash)>,
    /// What `cp … -` must have written.
    output: Option<Hash>,
    /// Bytes of all its files.
    pub(crate) bytes: u64,
    /// For messages.
    pub(crate) title: String,
}

/// The size of a file: empty, small, one segment or so, many segments.
fn draw_size(numbers: &mut Numbers) -> u64 {
    match numbers.below(10) {
        0 => 0,
        1 | 2 => numbers.below(5_000),
        3..=5 => numbers.below(1_000_000),
        6..=8 => numbers.below(6 << 20),
        _ => numbers.below(24 << 20),
    }
}

/// Writes one version of a tree; what is in it by relative name, and the bytes of all files.
fn write_tree(root: &Path, numbers: &mut Numbers) -> (Vec<(PathBuf, Hash)>, u64) {
    fs::create_dir_all(root.join("deep/er")).expect("a directory");
    let mut found = Vec::new();
    let mut bytes = 0;
    for number in 0..4 + numbers.below(TREE_FILES_MAX - 4) {
        let name = if number % 3 == 0 { format!("deep/er/{number}") } else { number.to_string() };
        let length = if number == 1 { numbers.below(4 << 20) } else { numbers.below(60_000) };
        let content = write_random(&root.join(&name), numbers.below(u64::MAX), length);
        bytes += length;
        found.push((name.into(), content));
    }
    if !root.join("link").is_symlink() {
        symlink("deep/er/0", root.join("link")).expect("a link");
    }
    found.push(("link".into(), hash_of_link(Path::new("deep/er/0"))));
    // Files of an earlier, larger version are copied again, too.
    for number in found.len() as u64 - 1..TREE_FILES_MAX {
        let name = if number % 3 == 0 { format!("deep/er/{number}") } else { number.to_string() };
        if let Ok(metadata) = root.join(&name).metadata() {
            bytes += metadata.len();
            found.push((name.clone().into(), hash_of(&root.join(&name))));
        }
    }
    (found, bytes)
}

/// Where all pulls arrive: several at once share its folder of partial files.
pub(crate) fn pull_folder(lab: &Lab) -> PathBuf {
    lab.scratch("pulled")
}

impl Transfer {
    /// Draws a transfer, makes its sources and promises what it delivers.
    pub(crate) fn plan(
        lab: &Lab,
        pair: &Pair<'_>,
        number: u64,
        numbers: &mut Numbers,
        watch: &Watch,
    ) -> Self {
        let kind = Kind::draw(numbers);
        let (from, to, slot) = (&pair.hosts[pair.from], &pair.hosts[pair.to], pair.slot);
        let name = format!("{}{slot}-{}", if kind.is_tree() { "t" } else { "f" }, number % NAMES);
        let local = lab.scratch(from);
        let pulled = pull_folder(lab);
        let exported = lab.path("exports").join(to);
        let is_push = matches!(kind, Kind::Push | Kind::StreamIn | Kind::TreePush);
        let source = if is_push { local.join(&name) } else { exported.join("files").join(&name) };
        let target = if is_push { exported.join("inbox") } else { pulled.clone() }.join(&name);
        let text = |path: &Path| path.to_str().expect("scratch folders have plain names").to_owned();
        let (here, inbox, files) = (text(&source), format!("{to}:inbox/"), format!("{to}:files/{name}"));
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let arguments = match kind {
            Kind::Push => words(&["cp", "-q", &here, &inbox]),
            Kind::Pull => words(&["cp", "-q", &files, &text(&target)]),
            Kind::StreamIn => words(&["cp", "-q", "-", &format!("{inbox}{name}")]),
            Kind::StreamOut => words(&["cp", "-q", &files, "-"]),
            Kind::TreePush => words(&["cp", "-q", "-r", &here, &inbox]),
            Kind::TreePull => words(&["cp", "-q", "-r", &files, &text(&pulled)]),
        };
        let title = format!("{kind:?} {number} of slot {slot}, {from} with {to}");
        let host = from.clone();
        let mut transfer =
            Self { kind, host, arguments, source, delivers: Vec::new(), output: None, bytes: 0, title };
        transfer.write_sources(&target, numbers);
        transfer.delivers.iter().for_each(|(path, content)| watch.promise(path, *content));
        transfer
    }

    fn write_sources(&mut self, target: &Path, numbers: &mut Numbers) {
        if self.kind.is_tree() {
            let (found, bytes) = write_tree(&self.source, numbers);
            self.bytes = bytes;
            self.delivers = found.into_iter().map(|(name, content)| (target.join(name), content)).collect();
            return;
        }
        self.bytes = draw_size(numbers);
        let content = write_random(&self.source, numbers.below(u64::MAX), self.bytes);
        match self.kind {
            Kind::StreamOut => self.output = Some(content),
            _ => self.delivers = vec![(target.to_owned(), content)],
        }
    }

    /// How many files it carries.
    pub(crate) fn files(&self) -> usize {
        self.delivers.len().max(1)
    }

    /// Starts its command.
    pub(crate) fn start(&self, lab: &Lab) -> Running {
        let mut command: Command = lab.command(&self.host);
        command.args(&self.arguments);
        if self.kind == Kind::StreamIn {
            let (reader, writer) = io::pipe().expect("a pipe");
            command.stdin(reader);
            let source = self.source.clone();
            std::thread::spawn(move || feed(&source, writer));
        }
        Running::start(command)
    }

    /// Compares what its command has delivered with the source; what differs.
    pub(crate) fn judge(&self, written: &[u8], watch: &Watch) -> Result<(), String> {
        if let Some(expected) = self.output
            && blake3::hash(written) != expected
        {
            return Err(format!("{}: other bytes on standard output", self.title));
        }
        for (path, content) in &self.delivers {
            let found = match fs::read_link(path) {
                Ok(target) => hash_of_link(&target),
                Err(_) if path.is_file() => hash_of(path),
                Err(error) => return Err(format!("{}: {}: {error}", self.title, path.display())),
            };
            if found != *content {
                return Err(format!("{}: {} differs from its source", self.title, path.display()));
            }
            watch.settle(path);
        }
        Ok(())
    }
}

/// Pours a file into a pipe, in pieces of no round size; ends where nobody reads any more.
fn feed(source: &Path, mut into: impl Write) {
    let mut file = File::open(source).expect("the source is there");
    let mut piece = vec![0; 77_777];
    while let Ok(count @ 1..) = file.read(&mut piece) {
        if into.write_all(&piece[..count]).is_err() {
            return;
        }
    }
}
