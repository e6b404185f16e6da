//! From what the user typed to the command that is sent, and how its reply is shown. Not here: sending it.

use storage_mapping::control_port::{Cdb, CommandBytes, ControlCommand, Transfer};
use storage_mapping::scsi::basic::BasicCommand;
use storage_mapping::scsi::capacity::ReadCapacity;
use storage_mapping::scsi::inquiry::InquiryCommand;
use storage_mapping::scsi::log::LogSense;
use storage_mapping::scsi::luns::ReportLuns;
use storage_mapping::scsi::mode::{ModeForm, ModeSense};
use storage_mapping::scsi::port_groups::ReportPortGroups;
use storage_mapping::scsi::reservations::{ReserveIn, ReserveInAction};
use transfer_core::inspect::Section;

use super::show;
use crate::args::ctl::{CtlCommand, CtlCommon, CtlRawArgs, PrAction};
use crate::command::CommandError;

/// The most that a reply with a list may bring.
const LIST_BYTES: u16 = 0x2000;
/// The most that INQUIRY data and pages may bring; some targets know one byte of length only.
const INQUIRY_BYTES: u16 = 0xfc;
/// The most that pages of vital product data may bring.
const VPD_BYTES: u16 = 0x0400;

/// How the data of a reply is shown.
pub(super) type Show = fn(&[u8]) -> Section;

/// A command with the way to show its reply.
pub(super) struct Plan<'a> {
    /// Where it goes.
    pub(super) common: &'a CtlCommon,
    /// What is sent.
    pub(super) command: ControlCommand,
    /// How its data is shown; `None`: there is none.
    pub(super) show: Option<Show>,
    /// Its bytes go out as they came.
    pub(super) is_binary: bool,
}

impl<'a> Plan<'a> {
    fn new(common: &'a CtlCommon, command: ControlCommand, show: Show) -> Self {
        Self { common, command, show: Some(show), is_binary: false }
    }
}

/// The plan of a command that reads, or of a raw one; `None` for those that are more than one command.
///
/// # Errors
/// Where a file cannot be read, or bytes are no command.
pub(super) fn of(command: &CtlCommand) -> Result<Option<Plan<'_>>, CommandError> {
    let plan = match command {
        CtlCommand::Inquiry(args) => {
            let inquiry = InquiryCommand { page: None, allocation: INQUIRY_BYTES };
            Plan::new(&args.common, inquiry.command(), show::inquiry::standard)
        }
        CtlCommand::Vpd(args) => {
            let inquiry = InquiryCommand { page: Some(args.page), allocation: VPD_BYTES };
            Plan::new(&args.common, inquiry.command(), show::vpd::page)
        }
        CtlCommand::Tur(args) => Plan {
            common: &args.common,
            command: BasicCommand::TestUnitReady.command(),
            show: None,
            is_binary: false,
        },
        CtlCommand::Rtpg(args) => {
            let report = ReportPortGroups { extended: false, allocation: LIST_BYTES.into() };
            Plan::new(&args.common, report.command(), show::unit::port_groups)
        }
        CtlCommand::Luns(args) => {
            let report = ReportLuns { select: 0, allocation: LIST_BYTES.into() };
            Plan::new(&args.common, report.command(), show::unit::luns)
        }
        CtlCommand::Capacity(args) => {
            Plan::new(&args.common, ReadCapacity::LONG.command(), show::unit::capacity)
        }
        CtlCommand::Log(args) => {
            let sense = LogSense::new(args.page, LIST_BYTES);
            Plan::new(&args.common, sense.command(), show::pages::log)
        }
        CtlCommand::Mode(args) => {
            let sense = ModeSense::new(ModeForm::Ten, args.page, LIST_BYTES);
            Plan::new(&args.common, sense.command(), show::pages::mode)
        }
        CtlCommand::Raw(args) => raw(args)?,
        CtlCommand::Pr(args) => {
            let (action, show): (_, Show) = match args.action {
                PrAction::Keys => (ReserveInAction::ReadKeys, show::reservations::keys),
                PrAction::Reservation => (ReserveInAction::ReadReservation, show::reservations::reservation),
                PrAction::Status => (ReserveInAction::ReadFullStatus, show::reservations::status),
                PrAction::Capabilities => {
                    (ReserveInAction::ReportCapabilities, show::reservations::capabilities)
                }
                _ => return Ok(None),
            };
            Plan::new(&args.common, ReserveIn { action, allocation: LIST_BYTES }.command(), show)
        }
        CtlCommand::Table(_) => return Ok(None),
    };
    Ok(Some(plan))
}

fn raw(args: &CtlRawArgs) -> Result<Plan<'_>, CommandError> {
    let wrong = |why: String| CommandError::ControlCommand { why };
    let cdb = Cdb::new(&args.bytes).map_err(|error| wrong(error.to_string()))?;
    let transfer = match (args.data_in, &args.out) {
        (Some(most), _) => Transfer::In(most as usize),
        (None, Some(file)) => {
            let read = std::fs::read(file);
            Transfer::Out(read.map_err(|error| wrong(format!("{}: {error}", crate::escape::name(file))))?)
        }
        (None, None) => Transfer::None,
    };
    let command = ControlCommand { bytes: CommandBytes::Scsi(cdb), transfer };
    let show: Option<Show> = args.data_in.map(|_| show::data as Show);
    Ok(Plan { common: &args.common, command, show, is_binary: args.binary })
}
