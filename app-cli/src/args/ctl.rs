//! Arguments of `ctl`. Not here: what the commands mean (`multipath::out_of_band`), how answers look (`command::ctl`).

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use thiserror::Error;

use crate::args::path::PathName;

const INQUIRY_EXAMPLES: &str = "\
Examples:
  diskwire -c beta.toml ctl inquiry disk0
  diskwire -c beta.toml ctl inquiry disk0/1 --explain     by its second path
  diskwire ctl inquiry block:/dev/sda,block:/dev/sdb      no configuration";

const VPD_EXAMPLES: &str = "\
Examples:
  diskwire -c beta.toml ctl vpd disk0             which pages there are
  diskwire -c beta.toml ctl vpd disk0 --page 83   device identification
  diskwire -c beta.toml ctl vpd disk0/1 --page di --exact";

const TUR_EXAMPLES: &str = "\
Examples:
  diskwire -c beta.toml ctl tur disk0       is the unit ready?
  diskwire -c beta.toml ctl tur disk0/1     is it over this path?";

const RTPG_EXAMPLES: &str = "\
Example:
  diskwire -c beta.toml ctl rtpg disk0";

const LUNS_EXAMPLES: &str = "\
Example:
  diskwire -c beta.toml ctl luns disk0/1";

const CAPACITY_EXAMPLES: &str = "\
Example:
  diskwire -c beta.toml ctl capacity disk0";

const PR_EXAMPLES: &str = "\
Examples:
  diskwire -c beta.toml ctl pr keys disk0
  diskwire -c beta.toml ctl pr register disk0 --key 0xabc       on every path
  diskwire -c beta.toml ctl pr reserve disk0 --type write-exclusive-registrants
  diskwire -c beta.toml ctl pr preempt disk0 --victim 0xdead
  diskwire -c beta.toml ctl pr release disk0
  diskwire -c beta.toml ctl pr release disk0/1 --key 0xabd --exact";

const LOG_EXAMPLES: &str = "\
Examples:
  diskwire -c beta.toml ctl log disk0               which pages there are
  diskwire -c beta.toml ctl log disk0 --page 0x0d   temperature";

const MODE_EXAMPLES: &str = "\
Examples:
  diskwire -c beta.toml ctl mode disk0               every page
  diskwire -c beta.toml ctl mode disk0 --page 0x0a   control page";

const RAW_EXAMPLES: &str = "\
Examples:
  diskwire -c beta.toml ctl raw disk0 12 00 00 00 60 00 --in 96
  diskwire -c beta.toml ctl raw disk0/1 c0 00 00 00 00 00 --exact

A command that the table says must stay on its path is refused for any other
one, and without a named path, unless --exact says that the named path is meant
and no other. `ctl table` shows what is known of each command.";

const TABLE_EXAMPLES: &str = "\
Examples:
  diskwire ctl table                every command
  diskwire ctl table reserve        those with this word
  diskwire ctl table 5f             those of this opcode";

/// Sends SCSI and NVMe control commands over whichever path can carry them.
///
/// A command names a device and may name one of its paths. What it means decides
/// which paths may carry it: --explain says which one did, why not the named one,
/// and how sure the outcome is.
#[derive(Args, Clone, Debug)]
pub struct CtlArgs {
    /// What to send.
    #[command(subcommand)]
    pub command: CtlCommand,
}

/// The commands of `ctl`.
#[derive(Clone, Debug, Subcommand)]
#[expect(missing_docs, reason = "described at their arguments, where their help comes from")]
pub enum CtlCommand {
    Inquiry(CtlInquiryArgs),
    Vpd(CtlVpdArgs),
    Tur(CtlTurArgs),
    Rtpg(CtlRtpgArgs),
    Luns(CtlLunsArgs),
    Capacity(CtlCapacityArgs),
    Pr(CtlPrArgs),
    Log(CtlLogArgs),
    Mode(CtlModeArgs),
    Raw(CtlRawArgs),
    Table(CtlTableArgs),
}

/// Where a command goes, and what is shown of that.
#[derive(Args, Clone, Debug)]
pub struct CtlCommon {
    /// A device of the configuration, one of its paths, or path addresses
    /// with commas between.
    #[arg(value_name = "DEVICE[/PATH]|ADDRESS,...")]
    pub what: CtlTarget,
    /// The path that is named, by its place from 0; the same as DEVICE/PATH.
    #[arg(long, value_name = "PATH")]
    pub path: Option<usize>,
    /// The named path or none.
    #[arg(long, group = "mode")]
    pub exact: bool,
    /// The named path if it can, else the best that may (the default).
    #[arg(long, group = "mode")]
    pub prefer: bool,
    /// The best path that may; the name only breaks ties.
    #[arg(long, group = "mode")]
    pub any: bool,
    /// Every path.
    #[arg(long, group = "mode")]
    pub all: bool,
    /// Decide and say why; send nothing.
    #[arg(long, group = "mode")]
    pub dry_run: bool,
    /// Say which path was used, why, and what it means for the answer.
    #[arg(long)]
    pub explain: bool,
    /// Give up after this time, whatever paths do.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub deadline: Duration,
    /// Open own sessions although their end undoes what a nexus keeps.
    #[arg(long)]
    pub ephemeral: bool,
    /// Print the answer and the decision as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Shows who the unit is: vendor, product, revision, abilities.
#[derive(Args, Clone, Debug)]
#[command(after_help = INQUIRY_EXAMPLES)]
pub struct CtlInquiryArgs {
    /// Where.
    #[command(flatten)]
    pub common: CtlCommon,
}

/// Shows a page of vital product data.
#[derive(Args, Clone, Debug)]
#[command(after_help = VPD_EXAMPLES)]
pub struct CtlVpdArgs {
    /// Where.
    #[command(flatten)]
    pub common: CtlCommon,
    /// The page: hex, or sv, sn, di, ei, mpp, bl, bdc, lbpv.
    #[arg(long, short = 'p', value_name = "PAGE", default_value = "00", value_parser = vpd_page)]
    pub page: u8,
}

/// Asks whether the unit is ready; with a path, whether it is over that path.
#[derive(Args, Clone, Debug)]
#[command(after_help = TUR_EXAMPLES)]
pub struct CtlTurArgs {
    /// Where.
    #[command(flatten)]
    pub common: CtlCommon,
}

/// Shows the target port groups with their access states.
#[derive(Args, Clone, Debug)]
#[command(after_help = RTPG_EXAMPLES)]
pub struct CtlRtpgArgs {
    /// Where.
    #[command(flatten)]
    pub common: CtlCommon,
}

/// Lists the units behind a target port.
#[derive(Args, Clone, Debug)]
#[command(after_help = LUNS_EXAMPLES)]
pub struct CtlLunsArgs {
    /// Where.
    #[command(flatten)]
    pub common: CtlCommon,
}

/// Shows size and block size.
#[derive(Args, Clone, Debug)]
#[command(after_help = CAPACITY_EXAMPLES)]
pub struct CtlCapacityArgs {
    /// Where.
    #[command(flatten)]
    pub common: CtlCommon,
}

/// Shows and changes persistent reservations, over all paths of the device.
#[derive(Args, Clone, Debug)]
#[command(after_help = PR_EXAMPLES)]
pub struct CtlPrArgs {
    /// What to do.
    #[arg(value_enum, value_name = "ACTION")]
    pub action: PrAction,
    /// Where.
    #[command(flatten)]
    pub common: CtlCommon,
    /// The own key of `register`: path 0 gets it, path 1 the next, and so on;
    /// 0 ends all registrations of this host. Of the others: the key of the
    /// path, where nobody else knows it.
    #[arg(long, value_name = "KEY", value_parser = key)]
    pub key: Option<u64>,
    /// The key that is registered now: sends one command as it is, over every
    /// path that it is for.
    #[arg(long, value_name = "KEY", value_parser = key)]
    pub old_key: Option<u64>,
    /// The key that is pre-empted.
    #[arg(long, value_name = "KEY", value_parser = key)]
    pub victim: Option<u64>,
    /// The type of the reservation.
    #[arg(long = "type", value_enum, value_name = "TYPE")]
    #[arg(default_value = "write-exclusive-registrants")]
    pub kind: PrType,
    /// Registrations outlive a loss of power of the target.
    #[arg(long)]
    pub aptpl: bool,
}

/// What `ctl pr` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PrAction {
    /// Lists the registered keys.
    Keys,
    /// Shows the reservation.
    Reservation,
    /// Shows every registration with its nexus.
    Status,
    /// Shows what the target can do.
    Capabilities,
    /// Registers the key, on every path.
    Register,
    /// The same, whatever key was registered before.
    RegisterIgnore,
    /// Reserves.
    Reserve,
    /// Ends the reservation, on the path that holds it.
    Release,
    /// Takes away another key, and its reservation.
    Preempt,
    /// The same, and ends its commands.
    PreemptAbort,
    /// Ends the reservation and all registrations of all hosts.
    Clear,
}

/// Types of reservations (SPC-5 6.15.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PrType {
    /// 1: others read.
    WriteExclusive,
    /// 3: others have no access.
    ExclusiveAccess,
    /// 5: those who registered write too.
    WriteExclusiveRegistrants,
    /// 6: those who registered have access too.
    ExclusiveAccessRegistrants,
    /// 7: as 5, and all of them hold it.
    WriteExclusiveAll,
    /// 8: as 6, and all of them hold it.
    ExclusiveAccessAll,
}

impl PrType {
    /// The number of the standard.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::WriteExclusive => 1,
            Self::ExclusiveAccess => 3,
            Self::WriteExclusiveRegistrants => 5,
            Self::ExclusiveAccessRegistrants => 6,
            Self::WriteExclusiveAll => 7,
            Self::ExclusiveAccessAll => 8,
        }
    }
}

/// Shows a log page.
#[derive(Args, Clone, Debug)]
#[command(after_help = LOG_EXAMPLES)]
pub struct CtlLogArgs {
    /// Where.
    #[command(flatten)]
    pub common: CtlCommon,
    /// The page, in hex; 00 lists them.
    #[arg(long, short = 'p', value_name = "PAGE", default_value = "00", value_parser = page)]
    pub page: u8,
}

/// Shows mode pages.
#[derive(Args, Clone, Debug)]
#[command(after_help = MODE_EXAMPLES)]
pub struct CtlModeArgs {
    /// Where.
    #[command(flatten)]
    pub common: CtlCommon,
    /// The page, in hex; 3f is every page.
    #[arg(long, short = 'p', value_name = "PAGE", default_value = "3f", value_parser = page)]
    pub page: u8,
}

/// Sends a command descriptor block as it is.
#[derive(Args, Clone, Debug)]
#[command(after_help = RAW_EXAMPLES)]
pub struct CtlRawArgs {
    /// Where.
    #[command(flatten)]
    pub common: CtlCommon,
    /// Its bytes, in hex.
    #[arg(value_name = "BYTE", required = true, value_parser = page)]
    pub bytes: Vec<u8>,
    /// It brings at most so many bytes.
    #[arg(long = "in", value_name = "BYTES", conflicts_with = "out")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    pub data_in: Option<u32>,
    /// It takes the bytes of this file.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Print what came as bytes, not as a dump.
    #[arg(long, conflicts_with = "json")]
    pub binary: bool,
}

/// Prints what is known of commands: which paths may carry them, whether they may
/// be repeated.
#[derive(Args, Clone, Debug)]
#[command(after_help = TABLE_EXAMPLES)]
pub struct CtlTableArgs {
    /// Only rows with this word or opcode.
    #[arg(value_name = "WORD")]
    pub word: Option<String>,
    /// Print them as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// What a command is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CtlTarget {
    /// A device of the configuration, and perhaps a path of it.
    Device(PathName),
    /// Paths by their addresses; nothing else is known of them.
    Addresses(Vec<String>),
}

/// A text that is neither.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "`{0}` is no device, path or address; write the device's id, its id and the place of a path, as in disk0/1, \
     or path addresses, as in block:/dev/sda,block:/dev/sdb"
)]
pub struct NotATarget(String);

impl FromStr for CtlTarget {
    type Err = NotATarget;

    fn from_str(text: &str) -> Result<Self, NotATarget> {
        let node = |part: &str| if part.starts_with('/') { format!("block:{part}") } else { part.to_owned() };
        if text.starts_with('/') || text.contains(':') {
            let parts: Vec<String> = text.split(',').map(node).collect();
            return if parts.iter().all(|part| part.contains(':')) {
                Ok(Self::Addresses(parts))
            } else {
                Err(NotATarget(crate::escape::name(text)))
            };
        }
        text.parse().map(Self::Device).map_err(|_| NotATarget(crate::escape::name(text)))
    }
}

impl fmt::Display for CtlTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(name) => name.fmt(f),
            Self::Addresses(addresses) => f.write_str(&crate::escape::one_line(&addresses.join(","))),
        }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let time = storage_mapping::parse_duration(text).map_err(|error| error.to_string())?;
    let longest = Duration::from_secs(600);
    if time.is_zero() || time > longest { Err("a time from 1ms to 600s".to_owned()) } else { Ok(time) }
}

/// One byte in hex, with or without `0x`.
fn page(text: &str) -> Result<u8, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    u8::from_str_radix(digits, 16).ok().filter(|_| is_plain).ok_or_else(|| "a byte in hex, as 83".to_owned())
}

/// A page of vital product data, by number or by its usual short name.
fn vpd_page(text: &str) -> Result<u8, String> {
    Ok(match text {
        "sv" => 0x00,
        "sn" => 0x80,
        "di" => 0x83,
        "ei" => 0x86,
        "mpp" => 0x87,
        "bl" => 0xb0,
        "bdc" => 0xb1,
        "lbpv" => 0xb2,
        other => page(other)?,
    })
}

/// A reservation key: hex with `0x`, or decimal.
fn key(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            u64::from_str_radix(digits, 16).ok()
        }
        Some(_) => None,
        None => text.parse().ok(),
    };
    parsed.ok_or_else(|| "a key of 64 bits, as 0x1122334455667788".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_devices_paths_and_addresses() {
        for (text, shown) in [
            ("disk0", "disk0"),
            ("disk0/1", "disk0/1"),
            ("/dev/sda", "block:/dev/sda"),
            ("block:/dev/sda,/dev/sdb", "block:/dev/sda,block:/dev/sdb"),
            ("iscsi://h/iqn.x:y/1", "iscsi://h/iqn.x:y/1"),
        ] {
            assert_eq!(text.parse::<CtlTarget>().unwrap().to_string(), shown);
        }
        for text in ["", "a b", "disk0/x", "block:/dev/sda,disk0"] {
            assert!(text.parse::<CtlTarget>().is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_are_read_as_storage_people_write_them() {
        assert_eq!((page("83"), page("0x0d"), vpd_page("di")), (Ok(0x83), Ok(0x0d), Ok(0x83)));
        assert!(page("100").is_err() && page("+1").is_err() && page("").is_err());
        assert_eq!((key("0xabc"), key("12")), (Ok(0xabc), Ok(12)));
        assert!(key("0x").is_err() && key("0x+1").is_err() && key("abc").is_err());
    }
}
