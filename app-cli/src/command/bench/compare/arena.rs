//! Where all copy the same from the same place to the same place, one after the other.
//!
//! Keeps true: what is timed begins and ends with the copying program; before it everything is on the disk, after it the copy
//! is compared with its source and removed. Not here: what comes of the figures (`standing`).

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use indicatif::ProgressBar;
use storage_mapping::ByteSize;

use super::super::rounds::spinner;
use super::content::{Listing, listing};
use super::contestant::Contestant;
use super::meter::{Cost, Daemon, Meter};
use super::places::Places;
use super::ssh::Ssh;
use super::standing::{Ours, Run};
use super::world::World;
use crate::args::bench::CompareArgs;
use crate::command::CommandError;
use crate::signals::Signals;

/// Size of the volume, and for a look.
const VOLUME_BYTES: u64 = 512 << 20;
const VOLUME_BYTES_QUICK: u64 = 128 << 20;
/// Sends through ssh what tar makes: folder, name, command.
const TAR_THROUGH: &str = "from=$1; name=$2; shift 2; tar -C \"$from\" -cf - \"$name\" | \"$@\"";

/// Source, target, and what lies between them.
pub(super) struct Arena {
    meter: Meter,
    world: World,
    ssh: Option<Ssh>,
    source: PathBuf,
    target: PathBuf,
    is_tree: bool,
    is_synced: bool,
    original: Listing,
    signals: Signals,
    spinner: ProgressBar,
    // Last: the folders go when nothing needs them any more.
    places: Places,
}

impl Arena {
    /// Makes everything; `make` makes the source at the place that it is given.
    pub(super) fn new(
        args: &CompareArgs,
        contestants: &[Contestant],
        make: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<Self, CommandError> {
        // From here on Ctrl-C ends the programs of a measurement, and this one in order.
        let signals = Signals::new().map_err(CommandError::Signals)?;
        let spinner = spinner(args.json);
        spinner.set_message("making what is to be copied");
        let (places, meter) = (Places::new(args)?, Meter::new()?);
        let [source, target] = ["source", "target"].map(|name| places.ends().join(name));
        let size = ByteSize(if args.quick { VOLUME_BYTES_QUICK } else { VOLUME_BYTES });
        fs::create_dir(&target).and_then(|()| make(&source)).map_err(CommandError::Demo)?;
        let world = World::new(&meter, places.volume(), size, &target)?;
        let needs_ssh = contestants.iter().any(|contestant| contestant.needs_ssh());
        let ssh = needs_ssh.then(|| Ssh::new(places.ends().join("ssh"))).transpose()?;
        let original = listing(&source).map_err(CommandError::Demo)?;
        let is_tree = source.is_dir();
        Ok(Self {
            meter,
            world,
            ssh,
            source,
            target,
            is_tree,
            is_synced: args.sync,
            original,
            signals,
            spinner,
            places,
        })
    }

    /// Where it is.
    pub(super) fn places(&self) -> &Places {
        &self.places
    }

    /// All contestants in turns, and after them what else belongs to a round. The runs of each.
    pub(super) fn rounds(
        &mut self,
        rounds: u16,
        contestants: &[Contestant],
        mut besides: impl FnMut(&Places) -> Result<(), CommandError>,
    ) -> Result<Vec<Vec<Run>>, CommandError> {
        let mut runs = vec![Vec::new(); contestants.len()];
        for round in 1..=rounds {
            for (contestant, runs) in contestants.iter().zip(&mut runs) {
                self.spinner.set_message(format!("{contestant}, round {round} of {rounds}"));
                let run = self.run(*contestant);
                // What ended because of Ctrl-C says no more than that.
                if self.signals.count() > 0 {
                    return Err(CommandError::Interrupted);
                }
                runs.push(run?);
            }
            self.spinner.set_message(format!("the device itself, round {round} of {rounds}"));
            besides(&self.places)?;
        }
        self.spinner.finish_and_clear();
        Ok(runs)
    }

    /// One copy.
    fn run(&self, contestant: Contestant) -> Result<Run, CommandError> {
        self.sync()?;
        let mut run = self.copy(contestant)?;
        if self.is_synced && !contestant.syncs() {
            let start = Instant::now();
            self.sync()?;
            run.synced_seconds = Some(run.seconds + start.elapsed().as_secs_f64());
        }
        let copy = self.target.join(self.source.file_name().expect("it was given one"));
        let found = listing(&copy).map_err(CommandError::Demo)?;
        if found != self.original {
            return Err(CommandError::BenchDiffers { name: contestant.to_string() });
        }
        fs::remove_dir_all(&self.target)
            .and_then(|()| fs::create_dir(&self.target))
            .map_err(CommandError::Demo)?;
        Ok(run)
    }

    /// Writes what file systems still hold back.
    fn sync(&self) -> Result<(), CommandError> {
        let sync = |folder: &Path| nix::unistd::syncfs(File::open(folder)?).map_err(io::Error::from);
        sync(&self.target).and_then(|()| sync(self.places.volume())).map_err(CommandError::Demo)
    }

    fn copy(&self, contestant: Contestant) -> Result<Run, CommandError> {
        match contestant {
            Contestant::Diskwire => self.diskwire(),
            Contestant::Nbdcopy => self.nbdcopy(),
            Contestant::RsyncArchive => self.rsync(&["-a"]),
            Contestant::RsyncFsync => self.rsync(&["-a", "--fsync"]),
            Contestant::RsyncWhole => self.rsync(&["-W"]),
            Contestant::Scp => self.scp(),
            Contestant::Tar => self.tar(),
        }
    }

    fn diskwire(&self) -> Result<Run, CommandError> {
        let options: &[&str] = if self.is_tree { &["-r", "-p"] } else { &[] };
        let copied = self.world.copy(&self.source, options)?;
        let (initiator, connector) = (copied.initiator, copied.connector);
        let ours = Ours {
            initiator_memory_bytes: initiator.memory_bytes,
            connector_memory_bytes: connector.memory_bytes,
            switches: initiator.switches + connector.switches,
            connector_requests: copied.connector_requests,
        };
        Ok(Run { ours: Some(ours), ..run(initiator, connector) })
    }

    fn scp(&self) -> Result<Run, CommandError> {
        let ssh = self.ssh();
        let mut line: Vec<OsString> = vec!["scp".into(), "-q".into()];
        line.extend(ssh.options("-P"));
        line.extend([self.source.clone().into(), self.target_over_ssh()]);
        self.beside(ssh.serve(&self.meter)?, &line)
    }

    fn rsync(&self, options: &[&str]) -> Result<Run, CommandError> {
        let ssh = self.ssh();
        let mut line: Vec<OsString> = vec!["rsync".into()];
        line.extend(options.iter().map(OsString::from));
        line.extend(["-e".into(), ssh.shell(), self.source.clone().into(), self.target_over_ssh()]);
        self.beside(ssh.serve(&self.meter)?, &line)
    }

    fn tar(&self) -> Result<Run, CommandError> {
        let ssh = self.ssh();
        let mut line: Vec<OsString> = ["sh", "-c", TAR_THROUGH, "sh"].map(Into::into).into();
        line.extend([self.places.ends().into(), "source".into(), "ssh".into()]);
        line.extend(ssh.options("-p"));
        line.extend([Ssh::host().into(), format!("tar -C {} -xf -", self.target.display()).into()]);
        self.beside(ssh.serve(&self.meter)?, &line)
    }

    fn nbdcopy(&self) -> Result<Run, CommandError> {
        let target = self.target.join("source");
        let size = fs::metadata(&self.source).map_err(CommandError::Demo)?.len();
        File::create_new(&target).and_then(|file| file.set_len(size)).map_err(CommandError::Demo)?;
        let [socket, ready] = ["nbd.sock", "nbd.pid"].map(|name| self.places.ends().join(name));
        for file in [&socket, &ready] {
            // Of the round before; not there in the first one.
            let _ = fs::remove_file(file);
        }
        let mut line: Vec<OsString> = ["nbdkit", "-f", "-U"].map(Into::into).into();
        line.extend([socket.clone().into(), "-P".into(), ready.clone().into()]);
        line.extend(["file".into(), target.into()]);
        let daemon = self.meter.start(&line, false)?;
        daemon.wait_for(&ready)?;
        let to = format!("nbd+unix:///?socket={}", socket.display());
        self.beside(daemon, &["nbdcopy".into(), self.source.clone().into(), to.into()])
    }

    /// Runs a program that talks to a daemon.
    fn beside(&self, daemon: Daemon, line: &[OsString]) -> Result<Run, CommandError> {
        let client = self.meter.run(line)?;
        Ok(run(client, daemon.end()?))
    }

    fn ssh(&self) -> &Ssh {
        self.ssh.as_ref().expect("made for whoever needs it")
    }

    fn target_over_ssh(&self) -> OsString {
        format!("{}:{}/", Ssh::host(), self.target.display()).into()
    }
}

/// The time is the client's, the CPU time that of both sides.
fn run(client: Cost, daemon: Cost) -> Run {
    Run {
        seconds: client.seconds,
        cpu_seconds: client.cpu_seconds + daemon.cpu_seconds,
        synced_seconds: None,
        ours: None,
    }
}
