//! What the user typed, nothing resolved: the commands and their options.
//!
//! Every option is documented in its help and nowhere else; every command's help ends with examples
//! and fits 80 columns. A command is a variant of [`Command`] once it does its work; the arguments
//! of the others stand ready in the modules below. Not here: what the texts mean (`config`,
//! `remote_path`, `copy_request`).

pub mod bench;
pub mod ctl;
pub mod keygen;
pub mod lab;
pub mod path;
pub mod pr_helper;
pub mod sim;
pub mod transfer;
pub mod volume;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::exit::EXIT_CODES_HELP;
use crate::name::Name;

/// Where the examples of the whole command begin.
const EXAMPLES: &str = "\
Examples:
  diskwire demo                            see a file cross a shared volume
  diskwire lab create world                a world to try things in
  diskwire -c world/beta.toml serve        one host answers
  diskwire -c world/alpha.toml cp FILE beta:inbox/     the other one sends

";

/// Carries files and streams between hosts that share a block device and nothing else.
#[derive(Clone, Debug, Parser)]
#[command(name = "diskwire", version, max_term_width = 80, arg_required_else_help = true)]
#[command(subcommand_required = true, after_help = format!("{EXAMPLES}{EXIT_CODES_HELP}"))]
pub struct Cli {
    /// Configuration of this host (HOST.toml); of the volume for `volume create`.
    #[arg(short, long, global = true, value_name = "FILE", env = "DISKWIRE_CONFIG")]
    #[arg(hide_env_values = true)]
    pub config: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands that are there.
#[derive(Clone, Debug, Subcommand)]
#[expect(missing_docs, reason = "each is described at its arguments, where its help comes from")]
pub enum Command {
    Bench(bench::BenchArgs),
    Cp(transfer::CpArgs),
    Ctl(ctl::CtlArgs),
    Demo(lab::DemoArgs),
    Keygen(keygen::KeygenArgs),
    Lab(lab::LabArgs),
    Ls(transfer::LsArgs),
    Path(path::PathArgs),
    PrHelper(pr_helper::PrHelperArgs),
    Serve(transfer::ServeArgs),
    Sim(sim::SimArgs),
    Status(transfer::StatusArgs),
    Volume(volume::VolumeArgs),
}

/// A size on the command line.
fn size(text: &str) -> Result<storage_mapping::ByteSize, crate::byte_size::NotASize> {
    crate::byte_size::parse(text)
}

/// A name on the command line.
fn name(text: &str) -> Result<Name, crate::name::NotAName> {
    text.parse()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn whole() -> clap::Command {
        Cli::command()
    }

    fn help_of(command: &mut clap::Command, path: &str, seen: &mut Vec<(String, String)>) {
        let path = format!("{path} {}", command.get_name());
        seen.push((path.clone(), command.render_help().to_string()));
        seen.push((path.clone(), command.render_long_help().to_string()));
        for sub in command.get_subcommands_mut() {
            help_of(sub, &path, seen);
        }
    }

    #[test]
    fn the_definitions_hold_together() {
        whole().debug_assert();
    }

    #[test]
    fn every_help_fits_80_columns_and_shows_examples() {
        let mut seen = Vec::new();
        let mut whole = whole();
        whole.build();
        help_of(&mut whole, "", &mut seen);
        assert!(seen.len() > 20);
        for (path, help) in seen {
            let wide: Vec<&str> = help.lines().filter(|line| line.chars().count() > 80).collect();
            assert!(wide.is_empty(), "{path}: {wide:?}");
            let is_group = help.contains("\nCommands:");
            let is_clap_help = path.contains(" help");
            assert!(is_group || is_clap_help || help.contains("Example"), "{path} has no example:\n{help}");
        }
    }

    #[test]
    fn lines_of_the_design_are_understood() {
        for line in [
            "lab create w",
            "lab create w --host a --host b --secondaries 0 --paths 2 --size 1GiB --lanes 7",
            "lab create w --master /dev/x --secondary /dev/y --secondary /dev/z --force /dev/x",
            "demo",
            "demo file --keep",
            "volume create V.toml --force /dev/x --force /dev/y",
            "-c V.toml volume create",
            "volume inspect --json V.toml",
            "volume check V.toml",
            "-c a.toml serve",
            "-c a.toml cp -r -p -n -q --json x y beta:in",
            "cp -c a.toml --recursive --preserve --no-clobber --quiet - beta:in/z",
            "-c a.toml cp beta:in/x -",
            "-c a.toml ls --json -l beta:in/x",
            "-c a.toml status --json",
            "keygen a.key",
            "-c a.toml path list --json",
            "-c a.toml path show disk0/1 --json",
            "-c a.toml path stat --prometheus",
            "-c a.toml path fail disk0/1",
            "-c a.toml path reinstate disk0/1 --json",
            "-c a.toml path policy disk0 weighted:3,1",
            "-c a.toml path group disk0 10",
            "-c a.toml path why disk0 --io --most 5",
            "-c a.toml path why disk0 --off",
            "-c a.toml path watch --count 3",
            "bench transfer --size 1GiB --compare --json",
            "bench file --size 1GiB --rounds 5 --folder /mnt --ends /dev/shm --sync --compare",
            "bench small-files --files 20000 --bytes 4096 --compare --json",
            "bench charts --out pictures --unit s --unit ratio file.json small-files.json",
            "-c a.toml ctl inquiry disk0/1 --explain",
            "ctl vpd /dev/sda,/dev/sdb --page 83 --path 1 --exact --json",
            "-c a.toml ctl tur disk0 --any --deadline 500ms",
            "-c a.toml ctl pr register disk0 --key 0xabc --old-key 1 --aptpl",
            "-c a.toml ctl pr preempt disk0 --key 1 --victim 2 --type exclusive-access-all",
            "-c a.toml ctl raw disk0/1 12 00 00 00 60 00 --in 96 --binary",
            "ctl table reserve --json",
        ] {
            let words = std::iter::once("diskwire").chain(line.split(' '));
            whole().try_get_matches_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }

    #[test]
    fn lines_that_make_no_sense_are_refused() {
        for line in [
            "",
            "frobnicate",
            "lab create",
            "lab create w --secondary /dev/y",
            "lab create w --master /dev/x --size 1GiB",
            "lab create w --paths 0",
            "lab create w --host a:b",
            "lab create w --size 1.5",
            "cp one",
            "cp --json --quiet",
            "ls",
            "ls local",
            "serve beta",
            "bench",
            "bench charts",
            "bench file --rounds 0",
            "bench small-files --files 0",
            "path",
            "path fail",
            "path show disk0/x",
            "path stat --json --prometheus",
            "path group disk0 70000",
            "path why disk0 --io --off",
            "ctl inquiry",
            "ctl inquiry disk0 --exact --any",
            "ctl raw disk0",
            "ctl raw disk0 100",
            "ctl raw disk0 12 --in 9 --out f",
            "ctl tur disk0 --deadline 0s",
            "ctl pr frobnicate disk0",
        ] {
            let words = std::iter::once("diskwire").chain(line.split_whitespace());
            assert!(whole().try_get_matches_from(words).is_err(), "{line}");
        }
    }
}
