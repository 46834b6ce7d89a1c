//! Starting another program, with exactly the descriptors that it is meant to have.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_getfd};

use super::signal::Mask;

/// What is to be started.
#[derive(Debug)]
pub struct Program<'a> {
    /// The path of the program.
    pub path: &'a CStr,
    /// Its arguments, the name it is called by first.
    pub args: &'a [CString],
    /// Its environment, as `NAME=value`.
    pub env: &'a [CString],
    /// What it inherits besides descriptors 0, 1 and 2, under the same numbers.
    pub keep: &'a [BorrowedFd<'a>],
    /// The signal mask it starts with; `None` for the calling thread's.
    pub mask: Option<&'a Mask>,
}

impl Program<'_> {
    /// Starts the program. Answers its process id; whoever starts it has to wait for it.
    ///
    /// # Errors
    /// The kernel's reason, `exec`'s included: no such file, no permission, no room.
    ///
    /// # Blocking
    /// Until the new program has been loaded.
    pub fn start(&self) -> io::Result<i32> {
        let mut actions = Actions::new()?;
        // KERNEL: duplicating a descriptor onto its own number clears close-on-exec only in newer C libraries. From a copy
        // with another number it does everywhere.
        let copies = self.keep.iter().map(|fd| copy(*fd)).collect::<io::Result<Vec<_>>>()?;
        for stray in strays(self.keep)? {
            match actions.close(stray) {
                // Above the limit that holds now, which was higher when it was opened: it cannot be named, and stays open.
                Err(error) if error.raw_os_error() == Some(libc::EBADF) => {}
                done => done?,
            }
        }
        for (copy, fd) in copies.iter().zip(self.keep) {
            actions.duplicate(copy.as_raw_fd(), fd.as_raw_fd())?;
        }
        let mut attributes = Attributes::new()?;
        if let Some(mask) = self.mask {
            attributes.set_mask(mask)?;
        }
        let (args, env) = (pointers(self.args), pointers(self.env));
        let mut pid = 0;
        // SAFETY: the path and both lists are null-terminated and live until the call returns; the actions and attributes
        // were initialised by their constructors.
        let rc = unsafe {
            libc::posix_spawn(
                &raw mut pid,
                self.path.as_ptr(),
                &raw const actions.0,
                &raw const attributes.0,
                args.as_ptr(),
                env.as_ptr(),
            )
        };
        checked(rc).map(|()| pid)
    }
}

fn checked(rc: libc::c_int) -> io::Result<()> {
    if rc == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(rc)) }
}

fn pointers(list: &[CString]) -> Vec<*mut libc::c_char> {
    // The C interface takes them as writable and does not write.
    list.iter().map(|item| item.as_ptr().cast_mut()).chain([ptr::null_mut()]).collect()
}

/// A copy whose number is out of the way of the numbers that are kept.
fn copy(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(fcntl_dupfd_cloexec(fd, fd.as_raw_fd() + 1)?)
}

/// What would be inherited without being meant to: opened by code that does not mark its descriptors.
fn strays(keep: &[BorrowedFd<'_>]) -> io::Result<Vec<RawFd>> {
    let open = match std::fs::read_dir("/proc/self/fd") {
        // Without /proc nobody knows.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        open => open?,
    };
    let numbers = open.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<RawFd>().ok());
    let strays = numbers
        .filter(|fd| *fd > 2 && keep.iter().all(|kept| kept.as_raw_fd() != *fd))
        .filter(|fd| {
            // SAFETY: the number was listed a moment ago; if it was closed since, the question is answered with an error.
            let fd = unsafe { BorrowedFd::borrow_raw(*fd) };
            fcntl_getfd(fd).is_ok_and(|flags| !flags.contains(FdFlags::CLOEXEC))
        })
        .collect();
    Ok(strays)
}

/// What happens to descriptors between the start and the program.
struct Actions(libc::posix_spawn_file_actions_t);

impl Actions {
    fn new() -> io::Result<Self> {
        let mut actions = MaybeUninit::uninit();
        // SAFETY: valid for writing one such object.
        checked(unsafe { libc::posix_spawn_file_actions_init(actions.as_mut_ptr()) })?;
        // SAFETY: a successful call has initialised it.
        Ok(Self(unsafe { actions.assume_init() }))
    }

    fn close(&mut self, fd: RawFd) -> io::Result<()> {
        // SAFETY: initialised by `new` and exclusively borrowed.
        checked(unsafe { libc::posix_spawn_file_actions_addclose(&raw mut self.0, fd) })
    }

    fn duplicate(&mut self, from: RawFd, to: RawFd) -> io::Result<()> {
        // SAFETY: as above; both numbers stay open until the program was started, as their owners are borrowed until then.
        checked(unsafe { libc::posix_spawn_file_actions_adddup2(&raw mut self.0, from, to) })
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: initialised by `new`, and not used afterwards.
        unsafe { libc::posix_spawn_file_actions_destroy(&raw mut self.0) };
    }
}

/// How the new process begins.
struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    fn new() -> io::Result<Self> {
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: valid for writing one such object.
        checked(unsafe { libc::posix_spawnattr_init(attributes.as_mut_ptr()) })?;
        // SAFETY: a successful call has initialised it.
        Ok(Self(unsafe { attributes.assume_init() }))
    }

    fn set_mask(&mut self, mask: &Mask) -> io::Result<()> {
        // SAFETY: both objects are initialised.
        checked(unsafe { libc::posix_spawnattr_setsigmask(&raw mut self.0, mask.as_ptr()) })?;
        let flags = libc::POSIX_SPAWN_SETSIGMASK as libc::c_short;
        // SAFETY: initialised by `new` and exclusively borrowed.
        checked(unsafe { libc::posix_spawnattr_setflags(&raw mut self.0, flags) })
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialised by `new`, and not used afterwards.
        unsafe { libc::posix_spawnattr_destroy(&raw mut self.0) };
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::sys::{ExitStatus, PidFd};

    fn run(script: &str, keep: &[BorrowedFd<'_>]) -> ExitStatus {
        let args = [c"sh", c"-c", &CString::new(script).unwrap()].map(CStr::to_owned);
        let env = [c"GREETING=hello".to_owned()];
        let program = Program { path: c"/bin/sh", args: &args, env: &env, keep, mask: None };
        let child = PidFd::open(program.start().unwrap()).unwrap();
        loop {
            if let Ok(Some(ended)) = child.wait() {
                return ended.status;
            }
        }
    }

    #[test]
    fn it_gets_its_environment_and_exactly_its_descriptors() {
        let (r, w) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        // Not marked to be closed on exec, and not meant for it all the same.
        let (stray, _other) = rustix::pipe::pipe().unwrap();
        let (kept, stray) = (w.as_raw_fd(), stray.as_raw_fd());
        // The shell must not open anything of its own meanwhile, as it does for a substitution.
        let script = format!(
            "set -- $GREETING; for n in 0 2 {kept} {stray} {}; do \
             if [ -e /proc/$$/fd/$n ]; then set -- $* yes; else set -- $* no; fi; done; echo $* >&{kept}",
            r.as_raw_fd()
        );
        assert_eq!(run(&script, &[w.as_fd()]), ExitStatus::Code(0));
        let mut answer = [0; 200];
        let len = rustix::io::read(&r, &mut answer).unwrap();
        assert_eq!(std::str::from_utf8(&answer[..len]).unwrap().trim(), "hello yes yes yes no no");
    }

    #[test]
    fn a_program_that_cannot_be_loaded_is_an_error_here() {
        let program =
            Program { path: c"/no/such/program", args: &[c"x".to_owned()], env: &[], keep: &[], mask: None };
        assert_eq!(program.start().unwrap_err().raw_os_error(), Some(libc::ENOENT));
    }
}
