//! Arguments of the commands that talk to other hosts: `serve`, `cp`, `ls`, `status`, `bench`.
//!
//! Not here: which ends of a copy go together (`copy_request`).

use std::ffi::{OsStr, OsString};

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::remote_path::RemotePath;

const SERVE_EXAMPLES: &str = "\
Example:
  diskwire -c beta.toml serve
      runs until it is told to stop (Ctrl-C, SIGTERM)

While it runs, `diskwire path` shows and steers its paths.

HOST.toml says which directories others see and who they are:
  [exports.inbox]
  path = \"/srv/inbox\"
  mode = \"rw\"                         # or \"ro\": others only read
  [peers.alpha]
  key = \"64 hex digits: what `diskwire keygen` printed on alpha\"
  exports = [\"inbox\"]                 # left out: all
and how the paths of each device are used; all but id and paths may be left out:
  [[volume.device]]
  id = \"disk0\"
  paths = [\"block:/dev/sdb\",
           { address = \"block:/dev/sdc\", priority = 0, fault_domain = 1 }]
  policy = \"latency\"                # see `diskwire path policy --help`
  failback = \"immediate\"            # to better priorities; \"manual\", \"30s\"
  no_path = \"60s\"                   # requests wait so long; \"queue\", \"fail\"
  attempt_timeout = \"5s\"            # then a path counts as hung
  quiesce_time = \"30s\"              # then a write given up on counts as dead
  hedge = false                     # a slow read goes over a second path too";

const CP_EXAMPLES: &str = "\
Examples:
  diskwire -c alpha.toml cp big.iso beta:inbox/        push a file
  diskwire -c alpha.toml cp -r src beta:inbox/backup   push a tree
  diskwire -c alpha.toml cp beta:files/x.csv .         pull a file
  tar c dir | diskwire -c alpha.toml cp - beta:inbox/dir.tar
  diskwire -c alpha.toml cp beta:files/x.gz - | zcat

A file appears under its name complete and verified, or not at all. After a
failure of any kind the same command goes on from where it was. A local name
with a colon is written ./a:b.";

const LS_EXAMPLES: &str = "\
Examples:
  diskwire -c alpha.toml ls beta:inbox
  diskwire -c alpha.toml ls -l beta:inbox/backup";

const STATUS_EXAMPLES: &str = "\
Examples:
  diskwire -c alpha.toml status
  diskwire -c alpha.toml status --json | jq .hosts";

/// Answers other hosts: the connector. One at a time for each host.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = SERVE_EXAMPLES)]
pub struct ServeArgs {}

/// Copies files to or from another host; either side may be HOST:EXPORT/PATH, or - for a stream.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = CP_EXAMPLES)]
pub struct CpArgs {
    /// Directories with all that is in them.
    #[arg(short, long)]
    pub recursive: bool,
    /// Keep modes and times.
    #[arg(short, long)]
    pub preserve: bool,
    /// Leave files alone that are there already.
    #[arg(short, long)]
    pub no_clobber: bool,
    /// No progress and no summary; failures are still shown.
    #[arg(short, long)]
    pub quiet: bool,
    /// Print the result as one JSON object on standard output.
    #[arg(long)]
    pub json: bool,
    /// What to copy: files, HOST:EXPORT/PATH, or - for standard input.
    #[arg(value_name = "SRC", required = true, num_args = 1..)]
    pub sources: Vec<OsString>,
    /// Where to: a file, a directory, HOST:EXPORT/PATH, or - for standard output.
    #[arg(value_name = "DST")]
    pub destination: OsString,
}

/// Lists a directory of another host.
#[derive(Args, Clone, Debug)]
#[command(after_help = LS_EXAMPLES)]
pub struct LsArgs {
    /// With mode, size and time.
    #[arg(short, long)]
    pub long: bool,
    /// Print the list as one JSON object.
    #[arg(long)]
    pub json: bool,
    /// The directory.
    #[arg(value_name = "HOST:EXPORT/PATH")]
    #[arg(value_parser = OsStringValueParser::new().try_map(|text| remote(&text)))]
    pub path: RemotePath,
}

/// Shows hosts, connections, paths and rates of the volume as this host sees them.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = STATUS_EXAMPLES)]
pub struct StatusArgs {
    /// Print them as one JSON object.
    #[arg(long)]
    pub json: bool,
}

fn remote(text: &OsStr) -> Result<RemotePath, crate::remote_path::RemotePathError> {
    RemotePath::parse(text)
}
