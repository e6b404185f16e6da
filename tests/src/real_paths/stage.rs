//! The processes that stand between a device and its file, and what is done to them.
//!
//! Keeps true: everything begins and ends with the [`Stage`], which belongs to one thread (nbdkit ends with the
//! thread that began it); every path has a relay process of its own; what a fault broke, [`Stage::heal`] makes
//! again. Not here: when (`drill`).

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use storage_mapping::device::{NbdDevice, NbdServer, NbdSettings};
use storage_mapping::path_address::open;
use storage_mapping::{BlockDevice, PathAddress};
use tempfile::TempDir;

use super::load::{BLOCK_BYTES, BLOCKS, stamped};
use super::programs::Program;
use super::{Fault, Layout, PathKind, ServerKind};

/// Bytes per second of a path before it is throttled.
const RATE: u64 = 16 << 20;
/// Memory that looks like a folder.
const MEMORY: &str = "/dev/shm";

/// How to begin a relay process: a program and what comes before `LISTEN TARGET`.
#[derive(Clone, Debug)]
pub struct RelayProgram {
    /// The program.
    pub program: PathBuf,
    /// Its first arguments.
    pub arguments: Vec<String>,
}

/// A relay as a process; it is killed when dropped.
#[derive(Debug)]
struct RelayProcess {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl RelayProcess {
    fn start(program: &RelayProgram, listen: &Path, target: &Path) -> io::Result<Self> {
        let mut command = Command::new(&program.program);
        command.args(&program.arguments);
        command.args([listen, target].map(|socket| format!("unix:{}", socket.display())));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let mut relay = Self { child, input, output };
        let listens = relay.line()?;
        if listens.starts_with("relaying") { Ok(relay) } else { Err(io::Error::other(listens)) }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.output.read_line(&mut line)? {
            0 => Err(io::Error::other("the relay ended")),
            _ => Ok(line),
        }
    }

    /// Tells it something, and waits until it is done.
    fn tell(&mut self, command: &str) -> io::Result<()> {
        writeln!(self.input, "{command}")?;
        let answer = self.line()?;
        if answer == "done\n" { Ok(()) } else { Err(io::Error::other(answer)) }
    }
}

impl Drop for RelayProcess {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A file, its servers and their relays.
#[derive(Debug)]
pub struct Stage {
    // The processes go before the folder.
    relays: Vec<Option<RelayProcess>>,
    servers: Vec<Option<Program>>,
    layout: Layout,
    relay: RelayProgram,
    folder: TempDir,
}

/// Reason and remedy of something that the system refused.
fn failed(what: &str) -> impl Fn(io::Error) -> String + '_ {
    move |error| format!("{what}: {error}")
}

impl Stage {
    /// Makes the file, stamped as a `load::Load` expects it, and starts everything.
    ///
    /// # Errors
    /// Where a program is missing, or the system refuses something; in words.
    ///
    /// # Panics
    /// Where a server that is there does not begin to serve.
    pub fn start(layout: Layout, relay: &RelayProgram) -> Result<Self, String> {
        let folder =
            if Path::new(MEMORY).is_dir() { tempfile::tempdir_in(MEMORY) } else { tempfile::tempdir() };
        let folder = folder.map_err(failed("a scratch folder"))?;
        let mut stage =
            Self { relays: Vec::new(), servers: Vec::new(), layout, relay: relay.clone(), folder };
        let bytes: Vec<u8> = (0..BLOCKS).flat_map(|block| stamped(block, 0)).collect();
        std::fs::write(stage.image(), bytes).map_err(failed("the backing file"))?;
        for server in 0..layout.servers.len() {
            let program = stage.start_server(server)?;
            stage.servers.push(Some(program));
        }
        for path in 0..layout.paths.len() {
            let relay = match layout.paths[path] {
                PathKind::File => None,
                PathKind::Server(_) => Some(stage.start_relay(path)?),
            };
            stage.relays.push(relay);
        }
        Ok(stage)
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("disk.raw")
    }

    fn socket(&self, name: &str, number: usize) -> PathBuf {
        self.folder.path().join(format!("{name}-{number}.sock"))
    }

    fn start_server(&self, server: usize) -> Result<Program, String> {
        let (socket, image) = (self.socket("server", server), self.image());
        match self.layout.servers[server] {
            ServerKind::Nbdkit => Program::nbdkit(&socket, &["file", &format!("file={}", image.display())]),
            ServerKind::QemuNbd => Program::qemu_nbd(&socket, &image),
        }
    }

    fn server_of(&self, path: usize) -> usize {
        match self.layout.paths[path] {
            PathKind::Server(server) => server,
            PathKind::File => unreachable!("only paths with a server are failed"),
        }
    }

    fn start_relay(&self, path: usize) -> Result<RelayProcess, String> {
        let target = self.socket("server", self.server_of(path));
        RelayProcess::start(&self.relay, &self.socket("path", path), &target)
            .map_err(failed("a relay process"))
    }

    /// Opens every path, in their order.
    ///
    /// # Errors
    /// Why one cannot be opened, in words.
    pub fn open_paths(&self) -> Result<Vec<Box<dyn BlockDevice>>, String> {
        (0..self.layout.paths.len()).map(|path| self.open_path(path)).collect()
    }

    fn open_path(&self, path: usize) -> Result<Box<dyn BlockDevice>, String> {
        let server = match self.layout.paths[path] {
            PathKind::Server(server) => self.layout.servers[server],
            PathKind::File => {
                let address = format!("file:{}", self.image().display());
                let address: PathAddress = address.parse().map_err(|error| format!("{address}: {error}"))?;
                return Ok(open(&address).map_err(|error| error.to_string())?.device);
            }
        };
        let export = if server == ServerKind::QemuNbd { "disk" } else { "" };
        let settings = NbdSettings {
            backoff_min: Duration::from_millis(10),
            backoff_max: Duration::from_millis(100),
            ..NbdSettings::default()
        };
        let relay = NbdServer::Unix(self.socket("path", path));
        let device = NbdDevice::open(&relay, export, settings).map_err(|error| error.to_string())?;
        Ok(Box::new(device))
    }

    /// Tells the relay of a path something.
    ///
    /// # Errors
    /// Where it is not understood, or there is no such relay; in words.
    pub fn tell(&mut self, path: usize, command: &str) -> Result<(), String> {
        let relay = self.relays[path].as_mut().ok_or("this path has no relay")?;
        relay.tell(command).map_err(failed(command))
    }

    /// What has to be so before the fault comes.
    ///
    /// # Errors
    /// As [`Self::tell`].
    pub fn prepare(&mut self, fault: Fault) -> Result<(), String> {
        if fault == Fault::Throttled {
            let victims = self.layout.victims();
            victims.into_iter().try_for_each(|path| self.tell(path, &format!("rate {RATE}")))?;
        }
        Ok(())
    }

    /// Makes the fault on a path with a relay.
    ///
    /// # Errors
    /// As [`Self::tell`].
    pub fn make(&mut self, fault: Fault, path: usize) -> Result<(), String> {
        let server = self.server_of(path);
        match fault {
            Fault::RelayKilled => self.relays[path] = None,
            Fault::ServerKilled => self.servers[server] = None,
            Fault::ServerStopped => self.servers[server].as_ref().ok_or("no server")?.stop(),
            Fault::RelayCut => self.tell(path, "cut")?,
            Fault::RelayPaused => self.tell(path, "pause")?,
            Fault::Throttled => self.tell(path, &format!("rate {}", RATE / 10))?,
            Fault::Delayed => self.tell(path, "delay 5ms 5ms")?,
        }
        Ok(())
    }

    /// Takes the fault back.
    ///
    /// # Errors
    /// As [`Self::tell`], or where a process cannot be started again.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn heal(&mut self, fault: Fault, path: usize) -> Result<(), String> {
        let server = self.server_of(path);
        match fault {
            Fault::RelayKilled => self.relays[path] = Some(self.start_relay(path)?),
            Fault::ServerKilled => self.servers[server] = Some(self.start_server(server)?),
            Fault::ServerStopped => self.servers[server].as_ref().ok_or("no server")?.go_on(),
            Fault::RelayCut => {}
            Fault::RelayPaused => self.tell(path, "resume")?,
            Fault::Throttled => self.tell(path, &format!("rate {RATE}"))?,
            Fault::Delayed => self.tell(path, "delay 0ms")?,
        }
        Ok(())
    }

    /// One block of the file, past all paths.
    ///
    /// # Errors
    /// Where it cannot be read; in words.
    pub fn block(&self, block: u64) -> Result<Vec<u8>, String> {
        let file = File::open(self.image()).map_err(failed("the backing file"))?;
        let mut bytes = vec![0; BLOCK_BYTES];
        file.read_exact_at(&mut bytes, block * BLOCK_BYTES as u64).map_err(failed("the backing file"))?;
        Ok(bytes)
    }
}
