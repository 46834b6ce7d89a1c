//! Everything that talks to the kernel, as small safe types. Nobody above this room sees a raw descriptor or errno.
#![expect(unsafe_code, reason = "system calls and fork live here, each wrapped at the lowest level")]

mod alarm;
pub mod cgroup;
mod clock;
pub mod cpu;
pub mod descriptor;
mod eventfd;
mod exit_info;
mod fork;
pub mod futex;
mod ident;
mod interrupts;
pub mod life;
pub mod listening;
pub mod memfd;
pub mod memory;
mod notebook;
pub mod packet;
mod per_process;
mod pidfd;
pub mod poll;
mod poller;
mod random;
pub(crate) mod robust;
pub mod signal;
pub mod spawn;
pub mod spin;
pub mod stream;
pub mod thread;
mod timer;
mod wait;

pub use alarm::{Alarm, SignalPage};
pub use clock::{Deadline, Moment, now};
pub use descriptor::close_raw;
pub use eventfd::EventFd;
pub use fork::{Forked, exit_now, fork};
pub use ident::{Identity, forks, me, parent_pid, pid};
pub use interrupts::{Interrupts, SignalPipe};
pub use life::{Life, start_time};
pub use notebook::Notebook;
pub(crate) use per_process::PerProcess;
pub use pidfd::{Ended, ExitStatus, PidFd, SignalError, has_pidfd};
pub use poller::Poller;
pub use random::fill_random;
pub use timer::Timer;
pub use wait::Wait;
