//! `udbctl`: all of it is in the library, so that tests can call it.

use std::process::ExitCode;

fn main() -> ExitCode {
    unisondb_ctl::main()
}
