//! Threads of ours: named, and deaf to signals, which belong to the program's own threads.

use std::ffi::{CStr, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::thread::JoinHandle;

use super::signal::Blocked;

/// What the system gives a thread that asks for nothing in particular.
const USUAL_STACK_BYTES: usize = 8 << 20;

/// A number that no other thread of this process has while the calling one runs.
#[inline]
#[must_use]
pub fn number() -> u64 {
    // SAFETY: it cannot fail, and touches nothing but a register. It is quicker than the address of a thread-local variable,
    // which a shared library has to ask the loader for.
    unsafe { libc::pthread_self() }
}

/// Starts a thread that never receives a signal.
pub fn spawn<F>(name: &str, stack_bytes: usize, body: F) -> io::Result<JoinHandle<()>>
where
    F: FnOnce() + Send + 'static,
{
    // The new thread inherits the mask of its creator, so there is no instant in which it could be chosen.
    let _deaf = Blocked::new()?;
    std::thread::Builder::new().name(name.to_owned()).stack_size(stack_bytes).spawn(body)
}

/// Like [`spawn`], without the standard library's bookkeeping and without a way to wait for the thread. In a freshly forked
/// child every page that is touched has to be copied, so this takes half the time there.
pub fn spawn_plain(
    name: &'static CStr,
    stack_bytes: usize,
    body: Box<dyn FnOnce() + Send>,
) -> io::Result<()> {
    struct Task {
        name: &'static CStr,
        body: Box<dyn FnOnce() + Send>,
    }
    extern "C" fn run(task: *mut c_void) -> *mut c_void {
        // SAFETY: made by `Box::into_raw` below, and given to this thread alone.
        let task = unsafe { Box::from_raw(task.cast::<Task>()) };
        // A thread that cannot be named works all the same.
        let _ = rustix::thread::set_name(task.name);
        (task.body)();
        std::ptr::null_mut()
    }
    let _deaf = Blocked::new()?;
    let mut attributes = MaybeUninit::uninit();
    // SAFETY: valid for writing one such object.
    unsafe { libc::pthread_attr_init(attributes.as_mut_ptr()) };
    // SAFETY: initialised above; it cannot fail for a valid object.
    unsafe { libc::pthread_attr_setdetachstate(attributes.as_mut_ptr(), libc::PTHREAD_CREATE_DETACHED) };
    let task = Box::into_raw(Box::new(Task { name, body }));
    let mut thread = MaybeUninit::uninit();
    let mut rc = libc::EINVAL;
    // A program with many thread-local variables needs a larger stack for them alone: then as large as usual.
    for bytes in [stack_bytes, USUAL_STACK_BYTES] {
        if rc == libc::EINVAL {
            // SAFETY: the attributes are initialised; a size that is refused leaves the one before.
            unsafe { libc::pthread_attr_setstacksize(attributes.as_mut_ptr(), bytes) };
            // SAFETY: the attributes are initialised; `run` takes what `task` is, and does not unwind: the bodies we give it
            // cannot panic, and one that did would end the process here rather than leave it.
            rc = unsafe { libc::pthread_create(thread.as_mut_ptr(), attributes.as_ptr(), run, task.cast()) };
        }
    }
    // SAFETY: initialised above and not used afterwards.
    unsafe { libc::pthread_attr_destroy(attributes.as_mut_ptr()) };
    if rc != 0 {
        // SAFETY: there is no thread, so the task is still ours.
        drop(unsafe { Box::from_raw(task) });
        return Err(io::Error::from_raw_os_error(rc));
    }
    Ok(())
}

/// Whether the calling thread is the first of its process, the one that runs a Python program's signal handlers.
#[must_use]
pub fn is_main() -> bool {
    rustix::thread::gettid() == rustix::process::getpid()
}

/// Lets somebody else have this processor, if anybody wants it.
pub fn give_way() {
    rustix::thread::sched_yield();
}
