//! The `diskwire` command: arguments in, exit code out. All else is in the library beside it.

use std::process::ExitCode;

fn main() -> ExitCode {
    diskwire::run(std::env::args_os()).into()
}
