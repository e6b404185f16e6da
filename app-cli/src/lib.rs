//! The application (layer 121 of FIG. 13): the `diskwire` command.
//!
//! What holds for every command: standard output carries nothing but what was asked for (a file's
//! bytes, a table, one JSON object); every message goes to standard error, a mistake as one line that
//! names the thing and the remedy; the exit code is one of `exit::Exit`; a name that came from a
//! peer or a file system is shown through `escape`.
//!
//! A library and not only a binary, so that tests can use the configuration, the keys and the lab
//! without starting a process. Not here: how blocks move (the crates below).

pub mod args;
pub mod byte_size;
pub mod config;
pub mod copy_request;
pub mod escape;
pub mod exit;
pub mod keys;
pub mod lab;
pub mod name;
pub mod progress;
pub mod remote_path;
pub mod state_dir;
