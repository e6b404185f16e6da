//! `diskwire lab create`: a complete small world in one folder.

use super::CommandError;
use crate::args::lab::{LabArgs, LabCommand, LabCreateArgs};
use crate::exit::Exit;
use crate::lab::{LabPlan, create, text};
use crate::progress::{Reporter, Verbosity};
use crate::volume_setup::create_volume;

pub(super) fn run(args: &LabArgs) -> Result<Exit, CommandError> {
    let LabCommand::Create(args) = &args.command;
    let plan = make(args, false)?;
    super::print(&text::next_steps(&plan))?;
    Ok(Exit::Done)
}

/// Makes the lab; with `quiet` without a word.
pub(super) fn make(args: &LabCreateArgs, quiet: bool) -> Result<LabPlan, CommandError> {
    let plan = LabPlan::new(args).map_err(crate::lab::LabError::from)?;
    let mut reporter = Reporter::new(Verbosity { quiet, json: false });
    create(&plan, &mut reporter, |config| create_volume(config, &args.force))?;
    Ok(plan)
}
