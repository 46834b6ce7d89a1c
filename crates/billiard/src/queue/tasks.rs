//! What was got and has been dealt with.

use std::sync::atomic::Ordering::{Acquire, Release};

use super::error::{Doing, QueueError};
use super::handle::Queue;
use super::layout::{AT_DONE, AT_TASKS, AT_ZEROS};
use super::lock::{here, lock};
use super::watch::{Rest, publish, rest};
use crate::failpoint;
use crate::sys::Deadline;
use crate::sys::poll::Woken;

impl Queue {
    /// How many messages were put whose tasks were not reported as done.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        let done = self.chain.store.map.word32(AT_DONE).load(Acquire);
        self.chain.tail().count.wrapping_sub(done) as usize
    }

    /// Reports one task as done.
    ///
    /// # Errors
    /// All of them are.
    pub fn task_done(&self) -> Result<(), QueueError> {
        const DOING: &str = "report a task as done";
        let held = lock(self.block(AT_TASKS), here().doing(DOING)?, self.spin).doing(DOING)?;
        let map = &self.chain.store.map;
        match self.unfinished() {
            0 => return Err(QueueError::TooManyDone),
            1 => publish(&held, &[self.all_done()], i32::MAX.cast_unsigned(), || {
                map.word32(AT_DONE).fetch_add(1, Release);
                map.word32(AT_ZEROS).fetch_add(1, Release);
            }),
            _ => {
                map.word32(AT_DONE).fetch_add(1, Release);
            }
        }
        failpoint::pass("queue_task_done");
        Ok(())
    }

    /// How often all tasks were done: for [`Queue::wait_done`].
    #[must_use]
    pub fn times_done(&self) -> u32 {
        self.chain.store.map.word32(AT_ZEROS).load(Acquire)
    }

    /// Waits until all tasks are done, or have been since `times_done` was `since`.
    ///
    /// # Blocking
    /// Until then, the deadline, or a signal handler.
    pub fn wait_done(&self, since: u32, deadline: Deadline) -> Result<Woken, QueueError> {
        const WAITING: &str = "wait for tasks to be done";
        let here = here().doing(WAITING)?;
        let is_done = || self.times_done() != since || self.unfinished() == 0;
        let guard = self.block(AT_TASKS);
        loop {
            if is_done() {
                return Ok(Woken::Ready);
            }
            match rest(guard, self.all_done(), here, self.spin, deadline, is_done).doing(WAITING)? {
                Rest::Up(duty) => self.hand_on(duty, AT_TASKS, is_done).doing(WAITING)?,
                Rest::TimedOut => return Ok(Woken::TimedOut),
                Rest::Interrupted => return Ok(Woken::Interrupted),
            }
        }
    }
}
