//! Single decisions about tasks: who runs what, what is lost, which limit fires.

use std::time::Duration;

use super::stage::{Did, Stage, hard, ms, soft, workers};
use super::world::SIGSEGV;
use crate::pool::scheduler::{Config, Limits, TaskKey};
use crate::sys::ExitStatus;

const CRASH: ExitStatus = ExitStatus::Signal(SIGSEGV);

#[test]
fn tasks_are_run_in_the_order_of_their_submission() {
    let mut stage = Stage::new(workers(1));
    let tasks = stage.submit(10);
    assert_eq!(stage.work_off(0), tasks);
    assert_eq!(stage.pool.pending(), 0);
}

#[test]
fn tasks_are_spread_before_they_are_piled_up() {
    let mut stage = Stage::new(workers(3));
    stage.submit(3);
    assert_eq!(stage.load(), [1, 1, 1]);
}

#[test]
fn a_task_that_was_submitted_before_anybody_came_up_is_run() {
    let mut stage = Stage::empty(workers(1), 8);
    stage.submit(2);
    assert_eq!(stage.pool.queued(), 2);
    stage.welcome();
    assert_eq!(stage.work_off(0), [0, 1]);
}

#[test]
fn only_the_claimed_task_of_a_dead_worker_is_lost() {
    let mut stage = Stage::new(workers(1));
    stage.submit(3);
    stage.begin(0);
    stage.die(0, CRASH);
    assert_eq!(stage.welcome(), [Did::Lost(0), Did::Start]);
    assert_eq!(stage.work_off(1), [1, 2]);
}

#[test]
fn nothing_is_lost_with_a_worker_that_had_claimed_nothing() {
    let mut stage = Stage::new(workers(2));
    stage.submit(2);
    stage.die(0, CRASH);
    let lost = stage.did().into_iter().any(|did| matches!(did, Did::Lost(_)));
    assert!(!lost);
    assert_eq!(stage.work_off(1).len(), 2);
}

#[test]
fn a_result_that_was_published_before_the_death_counts() {
    let mut stage = Stage::new(workers(1));
    stage.submit(1);
    stage.begin(0);
    stage.world.step(stage.ids[0]);
    assert!(stage.is_publishing(0));
    stage.die(0, CRASH);
    assert_eq!(stage.did(), [Did::Start]);
    assert_eq!(stage.pool.pending(), 0);
}

#[test]
fn a_worker_cannot_finish_what_another_one_was_given() {
    let mut stage = Stage::new(workers(2));
    stage.submit(2);
    let (mine, other) = (stage.pool.roster.get(stage.ids[0]).unwrap().handed[0], stage.ids[1]);
    assert_eq!(stage.pool.finished(other, mine, ms(1)), None);
    assert_eq!(stage.pool.finished(other, TaskKey::from_bits(u64::MAX), ms(1)), None);
    assert_eq!(stage.pool.pending(), 2);
}

#[test]
fn idle_worker_takes_half_of_the_longest_line() {
    let mut stage = Stage::new(workers(2));
    stage.stop(1);
    // Both are full; then one works everything off, and finds the other's line.
    stage.submit(8);
    assert_eq!(stage.load(), [4, 4]);
    stage.begin(1);
    for _ in 0..4 {
        stage.begin(0);
        stage.finish(0);
    }
    assert_eq!(stage.load(), [2, 2]);
    assert_eq!(stage.work_off(0).len(), 3, "the rest comes over as well");
    assert_eq!(stage.load(), [0, 1]);
}

#[test]
fn a_short_task_does_not_wait_behind_a_long_one_while_somebody_is_idle() {
    let mut stage = Stage::new(workers(2));
    stage.submit(4);
    assert_eq!(stage.load(), [2, 2]);
    stage.begin(0);
    assert_eq!(stage.work_off(1).len(), 3);
    assert_eq!(stage.load(), [1, 0]);
}

#[test]
fn an_idle_worker_looks_further_if_the_longest_line_is_all_claimed() {
    let mut stage = Stage::new(workers(3));
    stage.submit(12);
    // The first has finished three without anybody having heard of it, and runs the fourth.
    for _ in 0..3 {
        stage.begin(0);
        stage.world.finish(stage.ids[0]);
    }
    stage.begin(0);
    // The second has one running and one waiting.
    for _ in 0..2 {
        stage.begin(1);
        stage.finish(1);
    }
    stage.begin(1);
    assert_eq!(stage.load(), [4, 2, 4]);
    for _ in 0..4 {
        stage.begin(2);
        stage.finish(2);
    }
    assert_eq!(stage.load(), [4, 1, 1]);
}

#[test]
fn a_task_that_lies_at_a_stopped_worker_moves_to_an_idle_one() {
    let mut stage = Stage::new(workers(2));
    stage.submit(1);
    let holder = usize::from(stage.load()[1] == 1);
    stage.stop(holder);
    stage.pass(ms(10));
    assert_eq!(stage.load()[1 - holder], 1);
    assert_eq!(stage.work_off(1 - holder), [0]);
}

#[test]
fn a_task_moves_from_a_stopped_worker_also_if_somebody_becomes_idle_only_later() {
    let mut stage = Stage::new(workers(2));
    stage.submit(2);
    stage.stop(0);
    stage.begin(1);
    stage.pass(ms(100));
    assert_eq!(stage.load(), [1, 1], "nobody could run it");
    stage.finish(1);
    assert_eq!(stage.work_off(1).len(), 1);
}

#[test]
fn a_task_moves_from_a_worker_that_was_stopped_between_two_tasks() {
    let mut stage = Stage::new(workers(2));
    stage.submit(4);
    stage.begin(0);
    // The page still names the first task, whose result has arrived.
    stage.world.step(stage.ids[0]);
    stage.drain(0);
    stage.settle();
    stage.stop(0);
    assert_eq!(stage.work_off(1).len(), 2);
    stage.pass(ms(10));
    assert_eq!(stage.work_off(1).len(), 1);
}

#[test]
fn tasks_do_not_starve_at_a_stopped_worker_while_the_others_are_always_busy() {
    let mut stage = Stage::new(workers(2));
    stage.submit(12);
    stage.stop(0);
    for _ in 0..14 {
        stage.begin(1);
        stage.pass(ms(100));
        stage.finish(1);
        stage.submit(1);
    }
    let old = stage.world.facts().fates[..12].iter().filter(|f| f.ended.is_some()).count();
    assert_eq!(old, 12, "what lay at the stopped worker had its turn");
}

#[test]
fn a_suspect_is_trusted_again_after_it_has_finished_a_task() {
    let mut stage = Stage::new(workers(2));
    stage.submit(1);
    let holder = usize::from(stage.load()[1] == 1);
    stage.stop(holder);
    stage.pass(ms(10));
    stage.pass(ms(100));
    // It goes on. The other one is full, so it is tried with one task, and then gets as many as everybody.
    let id = stage.ids[holder];
    stage.world.facts().worker(id).stopped = false;
    stage.submit(6);
    assert_eq!(stage.load()[holder], 1);
    stage.begin(holder);
    stage.finish(holder);
    assert!(stage.load()[holder] > 1);
}

#[test]
fn an_empty_worker_whose_ring_had_no_room_is_tried_again() {
    let mut stage = Stage::with_rings(workers(1), 2);
    stage.submit(2);
    // What is taken back leaves its place occupied until the worker passes it.
    stage.end_job(0);
    stage.pass(ms(100));
    assert_eq!((stage.load(), stage.pool.queued()), (vec![0], 2));
    assert_eq!(stage.begin(0), None);
    stage.pass(ms(1_000));
    assert_eq!(stage.work_off(0), [0, 1]);
}

#[test]
fn a_worker_that_was_full_and_then_emptied_is_tried_again() {
    let mut stage = Stage::with_rings(workers(1), 2);
    stage.submit(3);
    assert_eq!((stage.load(), stage.pool.queued()), (vec![2], 1));
    stage.end_job(0);
    assert_eq!(stage.begin(0), None);
    stage.pass(ms(1_000));
    assert_eq!(stage.work_off(0), [0, 1, 2]);
}

#[test]
fn a_worker_without_room_is_not_asked_for_ever() {
    let mut stage = Stage::with_rings(workers(2), 4);
    // The first one's ring is full of what was taken back; the second one has a line to give away.
    stage.submit(8);
    stage.stop(0);
    stage.end_job(0);
    stage.pass(ms(150));
    assert_eq!(stage.load()[0], 0);
    assert_eq!(stage.work_off(1).len(), 8);
}

#[test]
fn a_worker_is_never_given_more_than_its_budget() {
    let mut stage = Stage::new(Config { tasks_per_worker: Some(3), ..workers(1) });
    stage.submit(7);
    assert_eq!(stage.load(), [3]);
    assert_eq!(stage.work_off(0).len(), 3);
    assert_eq!(stage.welcome(), [Did::Start], "its successor is asked for before it is gone");
    assert_eq!(stage.work_off(1).len(), 3);
}

#[test]
fn soft_limit_fires_once_before_hard() {
    let mut stage = Stage::new(workers(1));
    stage.submit_with(Limits { soft: Some(ms(100)), hard: Some(ms(200)) });
    stage.begin(0);
    assert_eq!(stage.after(ms(99)), []);
    assert_eq!(stage.after(ms(2)), [Did::Interrupt(0)]);
    assert_eq!(stage.after(ms(85)), []);
    assert_eq!(stage.after(ms(15)), [Did::Inspect(0), Did::TimedOut(0), Did::Terminate(0), Did::Start]);
    assert_eq!(stage.after(ms(498)), []);
    assert_eq!(stage.after(ms(2)), [Did::Kill(0)]);
    assert_eq!(stage.pool.next_deadline(), None);
}

#[test]
fn a_hard_limit_below_the_soft_one_leaves_no_time_for_a_warning() {
    let mut stage = Stage::new(workers(1));
    stage.submit_with(Limits { soft: Some(ms(100)), hard: Some(ms(50)) });
    stage.begin(0);
    let did = stage.after(ms(200));
    assert!(did.contains(&Did::TimedOut(0)) && !did.contains(&Did::Interrupt(0)));
}

#[test]
fn limits_count_from_the_beginning_of_a_task() {
    let mut stage = Stage::new(workers(1));
    stage.submit_with(soft(ms(50)));
    stage.pass(ms(80));
    assert_eq!(stage.did(), []);
    stage.begin(0);
    assert_eq!(stage.after(ms(49)), []);
    assert_eq!(stage.after(ms(2)), [Did::Interrupt(0)]);
}

#[test]
fn tasks_behind_a_timed_out_task_run_elsewhere() {
    let mut stage = Stage::new(workers(1));
    stage.submit_with(hard(ms(50)));
    stage.submit(3);
    stage.begin(0);
    stage.pass(ms(51));
    assert_eq!(stage.unclaimed(), [0], "the worker that is ended can begin nothing more");
    stage.welcome();
    assert_eq!(stage.work_off(1), [1, 2, 3]);
}

#[test]
fn a_limit_that_fires_just_as_the_task_ends_spares_the_next_one() {
    let mut stage = Stage::new(workers(1));
    stage.submit_with(Limits { soft: Some(ms(50)), hard: Some(ms(50)) });
    stage.submit(1);
    stage.begin(0);
    stage.world.facts().clock += 60_000_000;
    stage.world.finish(stage.ids[0]);
    stage.begin(0);
    assert_eq!(stage.after(Duration::ZERO), []);
    stage.drain(0);
    assert_eq!(stage.pool.pending(), 1);
    stage.finish(0);
    assert_eq!(stage.pool.pending(), 0);
}

#[test]
fn the_limit_of_a_task_that_waited_behind_another_is_not_missed() {
    let mut stage = Stage::new(workers(1));
    stage.submit(1);
    stage.submit_with(hard(ms(20)));
    stage.begin(0);
    stage.pass(ms(70));
    stage.finish(0);
    assert_eq!(stage.begin(0), Some(1));
    let did = stage.after(ms(21));
    assert!(did.contains(&Did::TimedOut(1)), "{did:?}");
}

#[test]
fn end_job_hits_only_what_runs() {
    let mut stage = Stage::new(workers(1));
    stage.submit(3);
    stage.begin(0);
    stage.end_job(0);
    assert_eq!(stage.unclaimed(), [0]);
    stage.die(0, ExitStatus::Signal(15));
    assert_eq!(stage.welcome(), [Did::Ended(0), Did::Start]);
    assert_eq!(stage.work_off(1), [1, 2]);
}

#[test]
fn end_job_knows_a_task_that_is_claimed_and_not_yet_on_the_status_page() {
    let mut stage = Stage::new(workers(1));
    stage.submit(1);
    stage.world.step(stage.ids[0]);
    stage.end_job(0);
    stage.die(0, ExitStatus::Signal(15));
    assert_eq!(stage.did(), [Did::Ended(0), Did::Start]);
}

#[test]
fn a_signal_that_comes_too_late_for_its_task_does_not_find_the_next_one() {
    let mut stage = Stage::new(workers(1));
    stage.submit(2);
    stage.begin(0);
    stage.end_job(0);
    stage.finish(0);
    assert_eq!(stage.begin(0), None, "the signal may still be on its way");
    stage.pass(ms(100));
    assert_eq!(stage.work_off(0), [1], "it has survived");
}

#[test]
fn a_task_that_is_withdrawn_never_runs_wherever_it_waits() {
    let mut stage = Stage::new(workers(1));
    let tasks = stage.submit(12);
    assert_eq!(stage.begin(0), Some(0));
    assert!(stage.pool.queued() > 0 && stage.load()[0] > 2, "some wait in the ring, some in the queue");
    let now = stage.now();
    let withdrawn = stage.pool.withdraw(|tag| *tag != 5 && *tag != 11, now, &mut stage.world);
    assert_eq!(withdrawn, [&tasks[1..5], &tasks[6..11]].concat());
    stage.finish(0);
    assert_eq!(stage.work_off(0), [5, 11]);
    assert_eq!((stage.pool.pending(), stage.pool.queued()), (0, 0));
}

#[test]
fn what_a_worker_has_begun_is_not_withdrawn() {
    let mut stage = Stage::new(workers(1));
    stage.submit(1);
    stage.begin(0);
    let now = stage.now();
    assert!(stage.pool.withdraw(|_| true, now, &mut stage.world).is_empty());
    stage.finish(0);
    assert_eq!(stage.pool.pending(), 0);
}

#[test]
fn a_withdrawn_task_does_not_count_against_the_share_of_its_worker() {
    let mut stage = Stage::new(Config { tasks_per_worker: Some(2), ..workers(1) });
    stage.submit(2);
    let now = stage.now();
    assert_eq!(stage.pool.withdraw(|tag| *tag == 0, now, &mut stage.world), [0]);
    stage.submit(1);
    assert_eq!(stage.work_off(0), [1, 2]);
}

#[test]
fn a_draining_pool_goes_home_when_the_last_task_is_withdrawn() {
    let mut stage = Stage::new(workers(1));
    stage.stop(0);
    stage.submit(1);
    stage.pool.close();
    let now = stage.now();
    assert_eq!(stage.pool.withdraw(|_| true, now, &mut stage.world), [0]);
    assert_eq!(stage.did(), [Did::Retire(0)]);
}

#[test]
fn an_idle_pool_sleeps_for_ever() {
    let mut stage = Stage::new(workers(3));
    assert_eq!(stage.pool.next_deadline(), None);
    for _ in 0..5 {
        stage.submit_with(Limits { soft: Some(ms(5)), hard: Some(ms(7)) });
        for worker in 0..3 {
            stage.work_off(worker);
        }
    }
    assert_eq!(stage.after(ms(1_000)), []);
    assert_eq!(stage.pool.next_deadline(), None);
}

#[test]
fn the_memory_of_a_flood_is_given_back() {
    let mut stage = Stage::new(workers(1));
    let flood = 70_000;
    for tag in 0..flood {
        let now = stage.now();
        stage.world.facts().calls = 0;
        stage.world.facts().fates.push(super::world::Fate::default());
        stage.pool.submit(tag, tag, Limits::NONE, now, &mut stage.world);
    }
    assert_eq!(stage.work_off(0).len(), flood as usize);
    stage.submit(1);
    assert_eq!(stage.pool.tasks.capacity(), 1);
    assert!(stage.pool.queue.capacity() < 65_536);
    assert_eq!(stage.work_off(0).len(), 1);
}
