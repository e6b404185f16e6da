//! The `diskwire` command.
fn main() {}
