//! `diskwire volume inspect`: the tables of a volume, field by field.

use serde_json::json;
use transfer_core::inspect;

use super::super::{CommandError, print, say};
use super::Surveyed;
use crate::args::Cli;
use crate::args::volume::VolumeInspectArgs;
use crate::exit::Exit;
use crate::section_view;

pub(super) fn run(cli: &Cli, args: &VolumeInspectArgs) -> Result<Exit, CommandError> {
    let surveyed = Surveyed::read(cli, args.volume.as_deref())?;
    let sections = inspect::volume(&surveyed.contents);
    if args.json {
        let object = json!({ "notices": surveyed.notices, "sections": section_view::json(&sections) });
        print(&format!("{object}\n"))?;
    } else {
        surveyed.notices.iter().for_each(|notice| say(notice));
        print(&section_view::text(&sections))?;
    }
    Ok(Exit::Done)
}
