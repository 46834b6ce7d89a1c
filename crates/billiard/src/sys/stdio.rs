//! The standard descriptors of a child.

use std::io;

use rustix::fs::{Mode, OFlags, open};
use rustix::stdio::dup2_stdin;

/// Puts the null device in the place of standard input.
pub fn null_stdin() -> io::Result<()> {
    let null = open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(dup2_stdin(&null)?)
}
