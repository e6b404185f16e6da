//! Arguments of `keygen`. Not here: the keys (`keys`).

use std::path::PathBuf;

use clap::Args;

const EXAMPLES: &str = "\
Examples:
  diskwire keygen alpha.key              a new key for a host
  diskwire keygen --admin admin.key      a new key for the admin of a volume
  diskwire -c alpha.toml keygen          a new key where alpha.toml wants it
  diskwire -c alpha.toml keygen --show   the public half of the one it has

The public half, printed as 64 hex digits, is what other hosts put into
[peers.NAME] and the admin into [[host]] of VOLUME.toml. The file itself stays
on its host, readable by its owner only.";

/// Makes a host's key, or shows the public half of one.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct KeygenArgs {
    /// The key file [default: the one that the configuration names].
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// An admin's key (it signs volumes) instead of a host's.
    #[arg(long, requires = "file")]
    pub admin: bool,
    /// Make nothing; print the public half of the key that is there.
    #[arg(long)]
    pub show: bool,
}
