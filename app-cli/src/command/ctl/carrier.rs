//! Who carries a command: a process of the host that has the paths, or a session of this command's own.
//!
//! Keeps true: one process is asked, the one of the lowest lane that has the device; a command that leaves something in a
//! nexus is not sent over a session that ends with it, unless the user says so. Not here: the socket (`control_socket`),
//! the session (`control_session`).

use std::path::PathBuf;
use std::time::Duration;

use multipath::control::{Answer, Command};
use multipath::out_of_band::CommandRequest;
use multipath::out_of_band::command_table::UserRows;
use multipath::{FailoverConfig, PathConfig, SelectorKind};

use crate::args::Cli;
use crate::args::ctl::{CtlCommon, CtlTarget};
use crate::args::path::PathName;
use crate::command::{CommandError, say};
use crate::config::{DeviceConfig, HostConfig, PathText};
use crate::control_session::ControlSession;
use crate::control_socket::command::{CommandWish, OutcomeText, ReservationText, ReservationWish};
use crate::control_socket::{Reply, Wish, ask_first};
use crate::escape;
use crate::name::Name;
use crate::stack::{Origin, Owner};

/// What the loop of a session may take beyond the patience of the caller.
const LOOP_PATIENCE: Duration = Duration::from_secs(2);
/// What a device is called that is named by its addresses.
const NAMELESS: &str = "device";

/// Who carries.
pub(super) enum Carrier {
    /// Processes of the host that has its state there.
    Process {
        /// The state folder.
        state: PathBuf,
        /// The device.
        device: String,
    },
    /// A session of its own.
    Own {
        /// It.
        session: ControlSession,
        /// The addresses of its paths.
        addresses: Vec<String>,
    },
}

impl Carrier {
    /// Finds one. `is_bound`: what the command leaves in the target ends with the nexus.
    ///
    /// # Errors
    /// Where the configuration or the paths are wrong, or an own session will not do.
    pub(super) fn open(cli: &Cli, common: &CtlCommon, is_bound: bool) -> Result<Self, CommandError> {
        let (origin, config) = match &common.what {
            CtlTarget::Addresses(addresses) => of_addresses(addresses),
            CtlTarget::Device(name) => {
                let host = HostConfig::load(cli.config_file()?)?;
                let (device, config) = (name.device.to_string(), config_of(&host, name)?.clone());
                let here = ask_first(&host.state, &Wish::Show { device: Some(device.clone()) });
                if here.is_some() {
                    return Ok(Self::Process { state: host.state, device });
                }
                (Origin::of_host(&host, false), config)
            }
        };
        Self::own(&origin, &config, is_bound && !common.ephemeral && !common.dry_run)
    }

    fn own(origin: &Origin, config: &DeviceConfig, must_last: bool) -> Result<Self, CommandError> {
        let ends_with_us = |path: &PathText| path.text.starts_with("iscsi:") || path.text.starts_with("sim:");
        if must_last && config.paths.iter().any(ends_with_us) {
            let device = if config.id.as_str() == NAMELESS {
                "these paths".to_owned()
            } else {
                format!("device {}", config.id)
            };
            return Err(CommandError::ControlEphemeral { device });
        }
        let session = ControlSession::open(origin, config)?;
        session.notices().iter().for_each(|notice| say(notice));
        let addresses = config.paths.iter().map(|path| escape::name(&path.text)).collect();
        Ok(Self::Own { session, addresses })
    }

    /// Sends a command and waits for what becomes of it.
    ///
    /// # Errors
    /// Where nobody carried it.
    pub(super) fn send(&self, request: &CommandRequest) -> Result<OutcomeText, CommandError> {
        match self {
            Self::Process { device, .. } => {
                let wish = CommandWish::of(device, request).expect("a SCSI command");
                let reply = self.ask(&Wish::Send(wish))?;
                reply.outcome.ok_or_else(|| refused("the process sent no outcome"))
            }
            Self::Own { session, .. } => {
                let answer = session
                    .control()
                    .ask(Command::Send(Box::new(request.clone())), request.patience + LOOP_PATIENCE);
                match answer.map_err(|error| refused(&error.to_string()))? {
                    Answer::Sent(outcome) => Ok(OutcomeText::from(&*outcome)),
                    _ => Err(refused("the device sent no outcome")),
                }
            }
        }
    }

    /// Changes the reservations of all paths, and waits for what becomes of it.
    ///
    /// # Errors
    /// Where nobody did.
    pub(super) fn reserve(&self, wish: ReservationWish) -> Result<ReservationText, CommandError> {
        match self {
            Self::Process { device, .. } => {
                let wish = ReservationWish { device: device.clone(), ..wish };
                let reply = self.ask(&Wish::Reserve(wish))?;
                reply.reservation.ok_or_else(|| refused("the process sent no outcome"))
            }
            Self::Own { session, .. } => {
                let (operation, patience) = wish.operation().map_err(|why| refused(&why))?;
                let command = Command::Reserve { operation, patience };
                let answer = session.control().ask(command, patience + LOOP_PATIENCE);
                match answer.map_err(|error| refused(&error.to_string()))? {
                    Answer::Reserved(outcome) => Ok(ReservationText::from(&*outcome)),
                    _ => Err(refused("the device sent no outcome")),
                }
            }
        }
    }

    fn ask(&self, wish: &Wish) -> Result<Reply, CommandError> {
        let Self::Process { state, .. } = self else { unreachable!("only processes are asked") };
        let reply = ask_first(state, wish).ok_or_else(|| refused("the process ended meanwhile"))?;
        match reply.error {
            Some(error) => Err(refused(&error)),
            None => Ok(reply),
        }
    }

    /// Who carried it, for people.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Process { device, .. } => format!("over the paths of the running process, device {device}"),
            Self::Own { addresses, .. } => {
                let line = |(place, address): (usize, &String)| format!("path {place} is {address}");
                addresses.iter().enumerate().map(line).collect::<Vec<_>>().join("\n")
            }
        }
    }
}

fn refused(why: &str) -> CommandError {
    CommandError::PathRefused { why: why.to_owned() }
}

/// The device of a configuration that a name says.
///
/// # Errors
/// Where there is none.
pub(in crate::command) fn config_of<'a>(
    host: &'a HostConfig,
    name: &PathName,
) -> Result<&'a DeviceConfig, CommandError> {
    let find = || host.volume.devices.iter().find(|one| one.id == name.device);
    find().ok_or_else(|| {
        let known: Vec<String> = host.volume.devices.iter().map(|one| one.id.to_string()).collect();
        let device = escape::name(name.device.as_str());
        refused(&format!("there is no device `{device}`; the devices are {}", known.join(", ")))
    })
}

/// A device of paths that have no configuration: where its addresses are seen from, and itself.
pub(in crate::command) fn of_addresses(addresses: &[String]) -> (Origin, DeviceConfig) {
    let id: Name = NAMELESS.parse().expect("a name");
    let path = |text: &String| PathText { text: text.clone(), line: 1, config: PathConfig::default() };
    let config = DeviceConfig {
        id,
        paths: addresses.iter().map(path).collect(),
        policy: SelectorKind::default(),
        failover: FailoverConfig::default(),
    };
    let origin = Origin {
        file: "command line".into(),
        base: ".".into(),
        owner: Owner::administrator(),
        commands: UserRows::default(),
        copies: None,
    };
    (origin, config)
}
