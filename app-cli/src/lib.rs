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
use storage_mapping::device::control_node;

use crate::args::Cli;
use crate::exit::Exit;

/// How often, at the end, and how far apart it is looked whether calls are still in the kernel.
const CALLS_LOOKS: u32 = 5;
const CALLS_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

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
    let exit = match command::run(&cli) {
        Ok(exit) => exit,
        Err(error) if error.reader_left() => Exit::Failed,
        Err(error) => {
            let line = escape::one_line(&exit::with_sources(&error));
            let _ = writeln!(io::stderr(), "diskwire: {line}");
            error.exit()
        }
    };
    say_who_is_still_there();
    exit
}

/// The end of a process waits for calls that hang in the kernel, and there is no choice: then it is said, so that nobody
/// wonders.
fn say_who_is_still_there() {
    let at_work = || storage_mapping::device::calls_at_work() + control_node::commands_at_work();
    // What is well is over in a moment.
    let is_over = (0..CALLS_LOOKS).any(|look| {
        if look > 0 {
            std::thread::sleep(CALLS_PAUSE);
        }
        at_work() == 0
    });
    if !is_over {
        let count = at_work();
        let _ = writeln!(
            io::stderr(),
            "diskwire: {count} calls to a path that hangs are still in the kernel; this process ends when they do"
        );
    }
}

/// Log lines of all crates, as `RUST_LOG` asks; errors only without it.
fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // A second call in one process (a test) keeps the first subscriber.
    let _ = subscriber.try_init();
}
