//! The application (layer 121 of FIG. 13): the `diskwire` command.
//!
//! What holds for every command: standard output carries nothing but what was asked for (a file's
//! bytes, a table, one JSON object); every message goes to standard error, a mistake as one line that
//! names the thing and the remedy; the exit code is one of [`exit::Exit`]; a name that came from a
//! peer or a file system is shown through [`escape`].
//!
//! A library and not only a binary, so that tests can use the configuration, the keys and the lab
//! without starting a process. Not here: how blocks move (the crates below).

pub mod args;
pub mod byte_size;
pub mod chart;
pub mod command;
pub mod config;
pub mod control_session;
pub mod control_socket;
pub mod copy_request;
pub mod escape;
pub mod exit;
pub mod host;
pub mod keys;
pub mod lab;
pub mod living_copies;
pub mod local_state;
pub mod name;
pub mod pr_helper;
pub mod progress;
pub mod remote_path;
pub mod section_view;
pub mod signals;
pub mod stack;
pub mod state_dir;
pub mod survey;
pub mod volume_setup;

use std::ffi::OsString;
use std::io::{self, Write};

use clap::Parser;

use crate::args::Cli;
use crate::exit::Exit;

/// Runs the command that `arguments` (the program's name first) ask for.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help that nobody reads any more (`diskwire --help | head -1`) is no failure.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Done };
        }
    };
    log_to_stderr();
    match command::run(&cli) {
        Ok(exit) => exit,
        Err(error) if error.reader_left() => Exit::Failed,
        Err(error) => {
            let line = escape::one_line(&exit::with_sources(&error));
            let _ = writeln!(io::stderr(), "diskwire: {line}");
            error.exit()
        }
    }
}

/// Log lines of all crates, as `RUST_LOG` asks; errors only without it.
fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // A second call in one process (a test) keeps the first subscriber.
    let _ = subscriber.try_init();
}
