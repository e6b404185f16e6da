//! Reading sources: the walk, small files by the pack, large ones by the segment.
//!
//! What holds: nothing outside the sources' roots is read, and below the top no link is followed; what
//! is read is a regular file; a file that is not as long as it was is an error. Not here: when what is
//! read (`sender`).

use super::super::code::{ErrorCode, LocalError};
use super::super::name::{NameError, RelativePath};
use super::super::root::{HASHED_WARM_BYTES, SegmentHasher};
use super::super::sender::PACK_ITEM_BYTES;
use super::super::session::source_name;
use super::super::store::{
    Attributes, Identity, LoadedFile, LocalDone, SourceFile, TransferId, WalkEntry, WalkItem,
};
use super::{Place, attributes, identity, lock, names_of};
use crate::export::Export;
use crate::file_system::{Errno, FileHandle, FileKind, FileStat, FileSystem, Handle, Mode, OFlags};
use crate::payload::Payload;
use byteorder::{ByteOrder, LittleEndian};
use std::collections::{BTreeMap, VecDeque};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use storage_mapping::BufferPool;

/// Entries of one part of a walk, at most.
const WALK_ENTRIES_MAX: usize = 1024;
/// Directories inside each other, at most: one descriptor each.
const DEPTH_MAX: usize = 200;

#[derive(Debug)]
enum Root {
    Own(Export),
    Shared(Arc<Place>),
}

impl Root {
    fn export(&self) -> &Export {
        match self {
            Self::Own(export) => export,
            Self::Shared(place) => &place.export,
        }
    }
}

/// One source: the tree it is in, where it is there, and how it is announced.
#[derive(Debug)]
struct Source {
    root: Result<Root, LocalError>,
    base: RelativePath,
    announced: RelativePath,
}

/// A directory that the walk is in.
#[derive(Debug)]
struct Level {
    directory: Handle,
    path: RelativePath,
    names: VecDeque<Vec<u8>>,
}

#[derive(Debug, Default)]
struct Walker {
    next_source: usize,
    levels: Vec<Level>,
}

/// The sources of one job.
#[derive(Debug)]
pub(crate) struct Sources {
    sources: Vec<Source>,
    recursive: bool,
    stream: Option<u64>,
    walker: Mutex<Walker>,
    open: Mutex<BTreeMap<u32, Handle>>,
}

impl Sources {
    fn new(sources: Vec<Source>, recursive: bool, stream: Option<u64>) -> Self {
        Self { sources, recursive, stream, walker: Mutex::default(), open: Mutex::default() }
    }

    /// Sources in an export.
    pub(crate) fn of_export(place: &Arc<Place>, paths: &[RelativePath], recursive: bool) -> Self {
        let source = |path: &RelativePath| {
            let name =
                path.split_last().map_or_else(|| place.export.name().to_vec(), |(_, name)| name.to_vec());
            Source {
                root: Ok(Root::Shared(Arc::clone(place))),
                base: path.clone(),
                announced: RelativePath::of_name(&name).unwrap_or_default(),
            }
        };
        Self::new(paths.iter().map(source).collect(), recursive, None)
    }

    /// Sources that the user named; a link at the very top is followed.
    pub(crate) fn of_paths(files: &dyn FileSystem, paths: &[Vec<u8>], recursive: bool) -> Self {
        Self::new(paths.iter().map(|path| local_source(files, path)).collect(), recursive, None)
    }

    /// Standard input, with the time now.
    pub(crate) fn of_stream(time_s: u64) -> Self {
        Self::new(Vec::new(), false, Some(time_s))
    }

    fn source(&self, index: u32) -> Result<(&Export, &RelativePath), LocalError> {
        let source = self.sources.get(index as usize).ok_or_else(|| LocalError::new(ErrorCode::Io))?;
        let root = source.root.as_ref().map_err(Clone::clone)?;
        Ok((root.export(), &source.base))
    }

    // ---- the walk -------------------------------------------------------------------------------

    /// The next part of the walk.
    pub(crate) fn walk(&self) -> LocalDone {
        let mut walker = lock(&self.walker);
        let mut entries = Vec::new();
        if let Some(time_s) = self.stream {
            let mtime_s = i64::try_from(time_s).unwrap_or(i64::MAX);
            let attributes = Attributes { mode: 0o644, mtime_s, ..Attributes::default() };
            entries.push(WalkEntry {
                source: 0,
                path: RelativePath::root(),
                announced: RelativePath::root(),
                item: WalkItem::File(Identity::default(), attributes),
            });
            return LocalDone::Walked { entries, end: true };
        }
        while entries.len() < WALK_ENTRIES_MAX {
            if let Some(level) = walker.levels.last_mut() {
                let Some(name) = level.names.pop_front() else {
                    walker.levels.pop();
                    continue;
                };
                let looked = level.directory.stat_entry(&name);
                let path = level.path.child(&name);
                entries.extend(self.look(&mut walker, &name, path, looked));
            } else if walker.next_source < self.sources.len() {
                walker.next_source += 1;
                entries.push(self.begin_source(&mut walker));
            } else {
                return LocalDone::Walked { entries, end: true };
            }
        }
        LocalDone::Walked { entries, end: false }
    }

    fn begin_source(&self, walker: &mut Walker) -> WalkEntry {
        let index = walker.next_source - 1;
        let source = &self.sources[index];
        let item = match &source.root {
            Err(error) => WalkItem::Failed(error.clone()),
            Ok(root) => match root.export().stat(&source.base) {
                Err(errno) => WalkItem::Failed(errno.into()),
                Ok(stat) => self.item(walker, &stat, &RelativePath::root(), None),
            },
        };
        self.entry(index, RelativePath::root(), item)
    }

    fn entry(&self, source: usize, path: RelativePath, item: WalkItem) -> WalkEntry {
        let announced = self.sources[source].announced.join(&path).unwrap_or_else(|_| path.clone());
        WalkEntry { source: u32::try_from(source).unwrap_or(u32::MAX), path, announced, item }
    }

    fn look(
        &self,
        walker: &mut Walker,
        name: &[u8],
        path: Result<RelativePath, NameError>,
        looked: Result<FileStat, Errno>,
    ) -> Option<WalkEntry> {
        let source = walker.next_source - 1;
        let level = walker.levels.last()?;
        let path = match path {
            Ok(path) if self.sources[source].announced.join(&path).is_ok() => path,
            _ => {
                let error = LocalError::with_text(ErrorCode::NameTooLong, "path is too long or not allowed");
                return Some(self.entry(source, level.path.clone(), WalkItem::Failed(error)));
            }
        };
        let item = match looked {
            // It vanished while the walk went on: as if it had never been there.
            Err(Errno::NOENT) => return None,
            Err(errno) => WalkItem::Failed(errno.into()),
            Ok(stat) => self.item(walker, &stat, &path, Some(name)),
        };
        Some(self.entry(source, path, item))
    }

    /// What something is; a directory is gone into.
    fn item(
        &self,
        walker: &mut Walker,
        stat: &FileStat,
        path: &RelativePath,
        name: Option<&[u8]>,
    ) -> WalkItem {
        match stat.kind {
            FileKind::File => WalkItem::File(identity(stat), attributes(stat)),
            FileKind::Directory if !self.recursive => WalkItem::Failed(LocalError::with_text(
                ErrorCode::IsADirectory,
                "is a directory (-r takes it along)",
            )),
            FileKind::Directory => match self.enter(walker, path) {
                Ok(()) => WalkItem::Directory(attributes(stat)),
                Err(error) => WalkItem::Failed(error),
            },
            FileKind::Link => {
                let target = match (walker.levels.last(), name) {
                    (Some(level), Some(name)) => level.directory.read_link(name),
                    _ => return WalkItem::Failed(LocalError::new(ErrorCode::IsALink)),
                };
                match target {
                    Ok(target) => WalkItem::Link(attributes(stat), target),
                    Err(errno) => WalkItem::Failed(errno.into()),
                }
            }
            FileKind::Other => WalkItem::Skipped(LocalError::new(ErrorCode::SpecialFile)),
        }
    }

    fn enter(&self, walker: &mut Walker, path: &RelativePath) -> Result<(), LocalError> {
        if walker.levels.len() >= DEPTH_MAX {
            return Err(LocalError::with_text(ErrorCode::Limit, "directories are nested too deep"));
        }
        let index = u32::try_from(walker.next_source - 1).unwrap_or(u32::MAX);
        let (export, base) = self.source(index)?;
        let whole = base.join(path).map_err(|_| LocalError::new(ErrorCode::NameTooLong))?;
        let directory = export.open_directory(&whole)?;
        let names = names_of(&*directory)?.into();
        walker.levels.push(Level { directory, path: path.clone(), names });
        Ok(())
    }

    // ---- reading --------------------------------------------------------------------------------

    fn open_source(&self, file: &SourceFile) -> Result<(Handle, FileStat), LocalError> {
        let (export, base) = self.source(file.source)?;
        let path = base.join(&file.path).map_err(|_| LocalError::new(ErrorCode::NameTooLong))?;
        let open = export.open_beneath(&path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?;
        let stat = open.stat()?;
        if stat.kind != FileKind::File {
            return Err(LocalError::new(ErrorCode::SpecialFile));
        }
        Ok((open, stat))
    }

    /// Reads small files, whole, into one payload.
    pub(crate) fn load_pack(&self, pool: &BufferPool, capacity: usize, files: &[SourceFile]) -> LocalDone {
        let mut payload = Payload::outgoing(pool, capacity);
        let mut at = 0;
        let loaded = files
            .iter()
            .map(|file| {
                let (open, stat) = self.open_source(file)?;
                let identity = identity(&stat);
                let start = at + PACK_ITEM_BYTES;
                let size = usize::try_from(identity.size).unwrap_or(usize::MAX);
                let end = start.checked_add(size).filter(|&end| end <= capacity);
                let end = end.ok_or_else(|| LocalError::new(ErrorCode::Changed))?;
                let room = payload.room();
                read_exactly(&*open, &mut room[start..end], 0)?;
                LittleEndian::write_u32(&mut room[at..at + 4], file.index);
                let length = u32::try_from(size).map_err(|_| LocalError::new(ErrorCode::Changed))?;
                LittleEndian::write_u32(&mut room[at + 4..start], length);
                let root = *blake3::hash(&room[start..end]).as_bytes();
                at = end;
                Ok(LoadedFile { identity, attributes: attributes(&stat), root })
            })
            .collect();
        payload.set_length(at);
        LocalDone::PackLoaded { payload, files: loaded }
    }

    /// The open file, opened now if it is the first use; it must still be what was announced.
    pub(crate) fn open_file(&self, file: &SourceFile) -> Result<Handle, LocalError> {
        if let Some(open) = lock(&self.open).get(&file.index) {
            return Ok(Arc::clone(open));
        }
        let (opened, stat) = self.open_source(file)?;
        if identity(&stat) != file.identity {
            return Err(LocalError::new(ErrorCode::Changed));
        }
        // Two workers may come here at once; both handles are of the same file.
        lock(&self.open).insert(file.index, Arc::clone(&opened));
        Ok(opened)
    }

    /// Forgets an open file.
    pub(crate) fn close_file(&self, index: u32) {
        lock(&self.open).remove(&index);
    }

    /// Reads one segment.
    pub(crate) fn load_segment(
        &self,
        pool: &BufferPool,
        file: &SourceFile,
        offset: u64,
        length: usize,
    ) -> Result<LocalDone, LocalError> {
        let open = self.open_file(file)?;
        let mut payload = Payload::outgoing(pool, length);
        let mut hasher = SegmentHasher::at(offset);
        let mut at = offset;
        for part in payload.room()[..length].chunks_mut(HASHED_WARM_BYTES) {
            read_exactly(&*open, part, at)?;
            hasher.update(part);
            at += part.len() as u64;
        }
        payload.set_length(length);
        Ok(LocalDone::SegmentLoaded { payload, hash: hasher.finish() })
    }

    /// Whether each source is what it was when it was read.
    pub(crate) fn unchanged(&self, files: &[(SourceFile, TransferId)]) -> Vec<bool> {
        let mut parents: BTreeMap<(u32, RelativePath), Result<Handle, Errno>> = BTreeMap::new();
        let mut check = |file: &SourceFile| -> Option<bool> {
            let (export, base) = self.source(file.source).ok()?;
            let path = base.join(&file.path).ok()?;
            let (parent, name) = path.split_last()?;
            let open = |parent: &RelativePath| export.open_directory(parent);
            let directory = parents
                .entry((file.source, parent))
                .or_insert_with_key(|(_, parent)| open(parent))
                .as_ref()
                .ok()?;
            let stat = directory.stat_entry(name).ok()?;
            Some(identity(&stat) == file.identity)
        };
        files.iter().map(|(file, _)| self.stream.is_some() || check(file).unwrap_or(false)).collect()
    }
}

/// A shorter file than it was is a changed one.
fn read_exactly(file: &dyn FileHandle, bytes: &mut [u8], offset: u64) -> Result<(), LocalError> {
    file.read_exact_at(bytes, offset).map_err(|error| {
        if error.kind() == std::io::ErrorKind::UnexpectedEof {
            LocalError::new(ErrorCode::Changed)
        } else {
            error.into()
        }
    })
}

fn local_source(files: &dyn FileSystem, path: &[u8]) -> Source {
    let announced = RelativePath::of_name(source_name(path)).unwrap_or_default();
    let opened = || -> Result<(Root, RelativePath), LocalError> {
        let real = files.canonicalize(Path::new(std::ffi::OsStr::from_bytes(path)))?;
        if files.stat(&real).is_ok_and(|stat| stat.is_directory()) {
            return Ok((Root::Own(Export::open_on(files, b"source", &real, false)?), RelativePath::root()));
        }
        let not_named = || LocalError::new(ErrorCode::NameInvalid);
        let (parent, name) = real.parent().zip(real.file_name()).ok_or_else(not_named)?;
        let base = RelativePath::of_name(name.as_bytes()).map_err(|_| not_named())?;
        Ok((Root::Own(Export::open_on(files, b"source", parent, false)?), base))
    };
    match opened() {
        Ok((root, base)) => Source { root: Ok(root), base, announced },
        Err(error) => Source { root: Err(error), base: RelativePath::root(), announced },
    }
}
