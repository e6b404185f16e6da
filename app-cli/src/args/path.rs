//! Arguments of `path`. Not here: what they mean to a running process (`control_socket`).

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use thiserror::Error;

use super::name;
use crate::name::Name;

const PATH_HELP: &str = "\
Examples:
  diskwire -c world/beta.toml path list      the processes of host beta
  diskwire path list --lab world             of all hosts of a lab

Exit codes: 0 done; 1 not done, or no process runs; 2 wrong usage or
configuration; 3 some of the processes did it, not all.";

const LIST_EXAMPLES: &str = "\
Example:
  diskwire -c beta.toml path list

A path with * is one that requests may take now. State: active; isolated (came
and went too often: used if no other is left); failed (probed until it
answers); standby (its target carries no I/O over it); foreign (it leads to
other data); disabled (by `path fail`). FLYING counts requests that it has now,
P50 and P99 are the times of its reads, or of its writes if those are more.";

const SHOW_EXAMPLES: &str = "\
Examples:
  diskwire -c beta.toml path show disk0        the device and its paths
  diskwire -c beta.toml path show disk0/1      its second path";

const STAT_EXAMPLES: &str = "\
Examples:
  diskwire -c beta.toml path stat
  diskwire -c beta.toml path stat --prometheus > /var/lib/node_exporter/dw.prom
  diskwire -c beta.toml path stat --json | jq '.lanes[].devices[].paths'";

const FAIL_EXAMPLES: &str = "\
Example:
  diskwire -c beta.toml path fail disk0/1
      no new request goes over it, until `path reinstate disk0/1`; what it has
      already, it keeps";

const REINSTATE_EXAMPLES: &str = "\
Example:
  diskwire -c beta.toml path reinstate disk0/1";

const POLICY_EXAMPLES: &str = "\
Examples:
  diskwire -c beta.toml path policy disk0               the one in use
  diskwire -c beta.toml path policy disk0 round-robin
  diskwire -c beta.toml path policy disk0 weighted:3,1  for path 0 and path 1

Policies:
  latency       the path that is likely to answer first (the default)
  queue-length  the one with the fewest requests
  service-time  the one with the fewest bytes; :4,1 are relative speeds
  weighted      in turn, by the weights that follow, as in :3,1
  round-robin   in turn
  request       the path that a request names; the others in turn

It lasts until the process ends; `policy` of the device in HOST.toml stays.";

const GROUP_EXAMPLES: &str = "\
Example:
  diskwire -c beta.toml path group disk0 10
      use the paths of priority 10, although better ones may be there; with the
      failback `immediate` the next change of a path goes back to those";

const WHY_EXAMPLES: &str = "\
Examples:
  diskwire -c beta.toml path why disk0/1     what happened to this path
  diskwire -c beta.toml path why disk0       to all paths of the device
  diskwire -c beta.toml path why disk0 --io  what is decided about requests
  diskwire -c beta.toml path why disk0 --off and no longer keep that";

const PLAN_EXAMPLES: &str = "\
Examples:
  diskwire -c beta.toml path plan                      all devices
  diskwire -c beta.toml path plan disk0 --service-time 20ms

Where processes run, the longest time that a path took so far counts; where
none runs, the plan is made from the configuration, and 10ms are assumed.
Lateness: a process that shares its machine sees a time-out a little late.
`path drill` shows whether a prediction holds.";

const DRILL_EXAMPLES: &str = "\
Examples:
  diskwire -c beta.toml path drill disk0/1 --fault hang
  diskwire -c beta.toml path drill disk0/1 --fault error --for 2s --load
  diskwire -c beta.toml path drill disk0/1 --fault hang --svg drill.svg

hang: what the path answers is withheld until the fault is over, then comes;
error: nothing is sent over it. Nothing is dropped or written. A second path
must be in use. The drill goes on to its end if this command is interrupted,
and ends at once if no other path is left. Outside of a lab it needs --yes.

Exit codes: 0 all requests that met the fault were done, none later than
predicted; 1 a request failed or took longer, nothing was measured, or there
was no drill; 2 wrong usage, or --yes is missing.";

const WATCH_EXAMPLES: &str = "\
Examples:
  diskwire -c beta.toml path watch             q or Ctrl-C ends it
  diskwire -c beta.toml path watch | tee log   one line for each change";

/// Shows and steers the paths of the processes of this host that run now.
///
/// Every `serve` and every command that transfers answers for its own paths.
#[derive(Args, Clone, Debug)]
#[command(after_help = PATH_HELP)]
pub struct PathArgs {
    /// Ask all hosts of a lab, instead of one host by -c: its folder.
    #[arg(long, global = true, value_name = "DIR")]
    pub lab: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: PathCommand,
}

/// The commands of `path`.
#[derive(Clone, Debug, Subcommand)]
#[expect(missing_docs, reason = "described at their arguments, where their help comes from")]
pub enum PathCommand {
    List(PathListArgs),
    Show(PathShowArgs),
    Stat(PathStatArgs),
    Fail(PathFailArgs),
    Reinstate(PathReinstateArgs),
    Policy(PathPolicyArgs),
    Group(PathGroupArgs),
    Why(PathWhyArgs),
    Plan(PathPlanArgs),
    Drill(PathDrillArgs),
    Watch(PathWatchArgs),
}

/// Shows every path, one line for each.
#[derive(Args, Clone, Debug)]
#[command(after_help = LIST_EXAMPLES)]
pub struct PathListArgs {
    /// Print everything as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Shows all about a device or a path, and what happened to it.
#[derive(Args, Clone, Debug)]
#[command(after_help = SHOW_EXAMPLES)]
pub struct PathShowArgs {
    /// Which.
    #[arg(value_name = "DEVICE[/PATH]")]
    pub what: PathName,
    /// Print it as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Shows what paths carried, how long that took, and the steps of failovers.
#[derive(Args, Clone, Debug)]
#[command(after_help = STAT_EXAMPLES)]
pub struct PathStatArgs {
    /// Print it as Prometheus text.
    #[arg(long, conflicts_with = "json")]
    pub prometheus: bool,
    /// Print everything as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Takes a path out of use.
#[derive(Args, Clone, Debug)]
#[command(after_help = FAIL_EXAMPLES)]
pub struct PathFailArgs {
    /// Which.
    #[arg(value_name = "DEVICE/PATH")]
    pub what: PathName,
    /// Print the result as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Puts a path back into use.
#[derive(Args, Clone, Debug)]
#[command(after_help = REINSTATE_EXAMPLES)]
pub struct PathReinstateArgs {
    /// Which.
    #[arg(value_name = "DEVICE/PATH")]
    pub what: PathName,
    /// Print the result as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Shows or sets how a device chooses among its paths.
#[derive(Args, Clone, Debug)]
#[command(after_help = POLICY_EXAMPLES)]
pub struct PathPolicyArgs {
    /// Which device.
    #[arg(value_name = "DEVICE", value_parser = name)]
    pub device: Name,
    /// The new policy.
    #[arg(value_name = "POLICY")]
    pub policy: Option<multipath::SelectorKind>,
    /// Print the result as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Makes a device use its paths of one priority.
#[derive(Args, Clone, Debug)]
#[command(after_help = GROUP_EXAMPLES)]
pub struct PathGroupArgs {
    /// Which device.
    #[arg(value_name = "DEVICE", value_parser = name)]
    pub device: Name,
    /// The priority of the paths to use.
    #[arg(value_name = "PRIORITY")]
    pub priority: u16,
    /// Print the result as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Tells why a path is in its state, or why requests go where they go.
#[derive(Args, Clone, Debug)]
#[command(after_help = WHY_EXAMPLES)]
pub struct PathWhyArgs {
    /// Which.
    #[arg(value_name = "DEVICE[/PATH]")]
    pub what: PathName,
    /// Show what was decided about requests; switched on if it is not.
    #[arg(long)]
    pub io: bool,
    /// No longer keep what is decided about requests.
    #[arg(long, conflicts_with = "io")]
    pub off: bool,
    /// The newest decisions to show.
    #[arg(long, value_name = "N", default_value_t = 20, requires = "io")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub most: u16,
    /// Print it as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Predicts the worst time that each kind of fault costs, and what it is made of.
#[derive(Args, Clone, Debug)]
#[command(after_help = PLAN_EXAMPLES)]
pub struct PathPlanArgs {
    /// Which device [default: all].
    #[arg(value_name = "DEVICE", value_parser = name)]
    pub device: Option<Name>,
    /// What a path takes at most, as in 20ms.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub service_time: Option<Duration>,
    /// Print it as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Lets a path fail on purpose for a time, and compares with what was predicted.
#[derive(Args, Clone, Debug)]
#[command(after_help = DRILL_EXAMPLES)]
pub struct PathDrillArgs {
    /// Which path.
    #[arg(value_name = "DEVICE/PATH")]
    pub what: PathName,
    /// What it does.
    #[arg(long, value_name = "FAULT")]
    pub fault: Fault,
    /// How long, 1ms to 50min [default: 5s, or twice what a hang is to cost].
    #[arg(long = "for", value_name = "TIME", value_parser = drill_time)]
    pub duration: Option<Duration>,
    /// Have the process read from the device meanwhile, 100 times a second.
    #[arg(long)]
    pub load: bool,
    /// What a path takes at most [default: the longest that was measured].
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub service_time: Option<Duration>,
    /// Draw the drill into this file.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// The process, where several have the device open [default: serve].
    #[arg(long, value_name = "N")]
    pub lane: Option<u16>,
    /// Do it although this is no lab.
    #[arg(long)]
    pub yes: bool,
    /// Print everything, the requests too, as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// What a drill does to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Fault {
    /// It does not answer.
    Hang,
    /// It takes nothing.
    Error,
}

impl Fault {
    /// As users write it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Hang => "hang",
            Self::Error => "error",
        }
    }
}

/// The longest fault of a drill.
pub const DRILL_TIME_MAX: Duration = Duration::from_secs(3000);

fn time(text: &str) -> Result<Duration, String> {
    storage_mapping::parse_duration(text).map_err(|error| error.to_string())
}

fn drill_time(text: &str) -> Result<Duration, String> {
    let time = time(text)?;
    if (Duration::from_millis(1)..=DRILL_TIME_MAX).contains(&time) {
        return Ok(time);
    }
    Err("a drill lasts from 1ms to 50min".to_owned())
}

/// Shows all paths anew every second, with rates.
#[derive(Args, Clone, Debug)]
#[command(after_help = WATCH_EXAMPLES)]
pub struct PathWatchArgs {
    /// End after so many looks.
    #[arg(long, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub count: Option<u32>,
}

/// A device, or one of its paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathName {
    /// The device.
    pub device: Name,
    /// The place of the path in the device's list, from 0.
    pub path: Option<usize>,
}

/// A text that names neither.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "`{0}` names no device and no path; write the device's id, or its id and the place of a path, as in disk0/1"
)]
pub struct NotAPathName(String);

impl FromStr for PathName {
    type Err = NotAPathName;

    fn from_str(text: &str) -> Result<Self, NotAPathName> {
        let wrong = || NotAPathName(crate::escape::name(text));
        let (device, path) = text.split_once('/').map_or((text, None), |(device, path)| (device, Some(path)));
        let place = |text: &str| {
            let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|_| is_plain).ok_or_else(wrong)
        };
        Ok(Self { device: device.parse().map_err(|_| wrong())?, path: path.map(place).transpose()? })
    }
}

impl fmt::Display for PathName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.device)?;
        self.path.map_or(Ok(()), |path| write!(f, "/{path}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_and_paths_have_names() {
        for text in ["disk0", "disk0/1", "a.b/63"] {
            assert_eq!(text.parse::<PathName>().unwrap().to_string(), text);
        }
        for text in ["", "/1", "disk0/", "disk0/x", "disk0/+1", "disk0/1/2", "di sk/1"] {
            assert!(text.parse::<PathName>().is_err(), "{text}");
        }
    }
}
