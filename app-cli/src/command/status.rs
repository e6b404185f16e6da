//! `diskwire status`: hosts, lanes and connections of the volume, as its tables say.
//!
//! Beacons are read twice, a second apart: a lane whose beacon went on is alive. One that did not may
//! only be quiet, and is shown with its period. Not here: paths and rates of a running `serve`.

use std::fmt::Write as _;
use std::time::Duration;

use storage_mapping::ByteSize;

use super::{CommandError, print};
use crate::args::Cli;
use crate::args::transfer::StatusArgs;
use crate::config::HostConfig;
use crate::exit::Exit;
use crate::state_dir::StateDir;
use crate::survey::{Survey, Surveyor};

/// Between the two looks at the beacons.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);

pub(super) fn run(cli: &Cli, args: &StatusArgs) -> Result<Exit, CommandError> {
    let config = HostConfig::load(cli.config_file()?)?;
    let mut surveyor = Surveyor::open(&config)?;
    let first = surveyor.look();
    std::thread::sleep(LOOK_AGAIN_AFTER);
    let survey = surveyor.look();
    if args.json {
        print(&(serde_json::to_string(&survey).expect("plain data") + "\n"))?;
    } else {
        let state = StateDir::open(&config.state)?;
        print(&text(&config, &state, &first, &survey)?)?;
    }
    Ok(Exit::Done)
}

fn text(
    config: &HostConfig,
    state: &StateDir,
    first: &Survey,
    survey: &Survey,
) -> Result<String, CommandError> {
    let mut text = format!("volume {}\n", survey.volume);
    for device in &survey.devices {
        let size = ByteSize(device.bytes).to_string();
        let _ = writeln!(text, "  {:<16} {size:>10}  {} data segments", device.id, device.segments);
    }
    text += "\nhost             lane  process        incarnation  beacon\n";
    for (lane, before) in survey.lanes.iter().zip(&first.lanes) {
        let own = lane.host == config.host.as_str();
        let process = if own && state.is_held(lane.lane)? {
            "runs here"
        } else if lane.state == "running" && lane.beacon != before.beacon {
            "alive"
        } else if lane.state == "running" {
            "quiet"
        } else {
            lane.state
        };
        let kind = if lane.lane == 0 { "serve" } else { "cp" };
        let beacon = match lane.state {
            "running" => format!("{}, every {:.0} s", lane.beacon, f64::from(lane.period_ms) / 1000.0),
            _ => String::new(),
        };
        let row = format!(
            "{:<16} {:>1} {kind:<5} {process:<14} {:>10}  {beacon}",
            lane.host, lane.lane, lane.incarnation
        );
        let _ = writeln!(text, "{}", row.trim_end());
    }
    let _ = writeln!(text, "\n{} of {} connection slots in use", survey.connections.len(), survey.slots);
    for slot in &survey.connections {
        let _ = writeln!(
            text,
            "  {} lane {}: {} of {}, {}",
            slot.host, slot.lane, slot.role, slot.peer, slot.state
        );
    }
    for notice in &survey.notices {
        let _ = writeln!(text, "notice: {notice}");
    }
    Ok(text)
}
