//! Single decisions about workers: births that fail, replacements, growing and shrinking, and the ends of pools.

use super::stage::{Did, Stage, hard, ms, workers};
use crate::pool::scheduler::{Config, Limits, Phase, RestartPolicy};
use crate::sys::ExitStatus;

const FAILED: ExitStatus = ExitStatus::Code(1);
const KILLED: ExitStatus = ExitStatus::Signal(9);

fn restarts(most: u32) -> Config {
    let restart = RestartPolicy { max_restarts: Some(most), ..RestartPolicy::default() };
    Config { restart, ..workers(1) }
}

/// The newest worker dies while it starts.
fn fail_to_start(stage: &mut Stage) -> Vec<Did> {
    let newest = stage.ids.len() - 1;
    stage.pool.started(stage.ids[newest]);
    stage.die(newest, FAILED);
    stage.did()
}

#[test]
fn starts_that_fail_are_tried_five_times_with_doubling_waits_and_then_no_more() {
    let mut stage = Stage::empty(workers(1), 8);
    stage.submit(2);
    assert_eq!(stage.did(), [Did::Start]);
    for wait in [100, 200, 400, 800, 1_600] {
        assert_eq!(fail_to_start(&mut stage), []);
        assert_eq!(stage.after(ms(wait - 1)), []);
        assert_eq!(stage.after(ms(1)), [Did::Start]);
    }
    assert_eq!(fail_to_start(&mut stage), [Did::Broke, Did::Broken(0), Did::Broken(1)]);
    assert_eq!(stage.pool.phase(), Phase::Broken);
    assert!(stage.pool.is_over());
    assert_eq!(stage.pool.next_deadline(), None);
}

#[test]
fn a_patient_pool_tries_longer_and_waits_no_longer_each_time_in_the_end() {
    let restart = RestartPolicy { retries: 8, ..RestartPolicy::default() };
    let mut stage = Stage::empty(Config { restart, ..workers(1) }, 8);
    assert_eq!(stage.did(), [Did::Start]);
    for wait in [100, 200, 400, 800, 1_600, 3_200, 3_200, 3_200] {
        assert_eq!(fail_to_start(&mut stage), []);
        assert_eq!(stage.after(ms(wait - 1)), []);
        assert_eq!(stage.after(ms(1)), [Did::Start]);
    }
    assert_eq!(fail_to_start(&mut stage), [Did::Broke]);
}

#[test]
fn a_process_that_cannot_be_made_counts_as_a_failed_start() {
    let mut stage = Stage::empty(workers(1), 8);
    stage.did();
    let now = stage.now();
    stage.world.facts().seat(stage.ids[0]);
    stage.pool.not_started(stage.ids[0], now, &mut stage.world);
    assert_eq!(stage.did(), []);
    assert_eq!(stage.after(ms(100)), [Did::Start]);
}

#[test]
fn starts_that_fail_together_count_once_and_only_one_is_tried_then() {
    let mut stage = Stage::empty(workers(4), 8);
    assert_eq!(stage.did().len(), 4);
    for worker in 0..4 {
        stage.pool.started(stage.ids[worker]);
        stage.die(worker, FAILED);
    }
    assert_eq!(stage.after(ms(100)), [Did::Start]);
    stage.rise(4);
    assert_eq!(stage.did(), [Did::Start; 3], "it works again: all the others are tried");
}

#[test]
fn a_start_that_succeeds_forgives_the_failures() {
    let mut stage = Stage::empty(workers(1), 8);
    stage.did();
    for _ in 0..4 {
        fail_to_start(&mut stage);
        stage.after(ms(2_000));
    }
    let newest = stage.ids.len() - 1;
    stage.rise(newest);
    stage.die(newest, ExitStatus::Code(0));
    assert_eq!(stage.did(), [Did::Start]);
    assert_eq!(fail_to_start(&mut stage), []);
    assert_eq!(stage.after(ms(100)), [Did::Start], "the waits are short again");
}

#[test]
fn failing_starts_do_not_break_a_pool_in_which_others_work() {
    let mut stage = Stage::new(workers(2));
    stage.die(1, KILLED);
    stage.did();
    for _ in 0..12 {
        let did = stage.after(ms(4_000));
        assert_eq!(did, [Did::Start]);
        assert_eq!(fail_to_start(&mut stage), []);
    }
    assert_eq!(stage.pool.phase(), Phase::Running);
    stage.submit(1);
    assert_eq!(stage.work_off(0), [0]);
    // The last one goes: now nobody works.
    stage.die(0, KILLED);
    assert_eq!(stage.after(ms(4_000)), [Did::Start]);
    assert_eq!(fail_to_start(&mut stage), [Did::Broke]);
}

#[test]
fn a_worker_that_comes_up_and_dies_at_once_is_not_replaced_in_a_hot_loop() {
    let mut stage = Stage::new(workers(1));
    for round in 0..20 {
        stage.die(round, KILLED);
        assert_eq!(stage.did(), []);
        assert_eq!(stage.after(ms(100)), [Did::Start]);
        stage.rise(round + 1);
    }
}

#[test]
fn max_restarts_counts_only_workers_that_never_finished_a_task() {
    let mut stage = Stage::new(restarts(2));
    for round in 0..10 {
        stage.submit(1);
        stage.work_off(round);
        stage.die(round, KILLED);
        stage.welcome();
    }
    assert_eq!(stage.pool.phase(), Phase::Running);
}

#[test]
fn more_than_max_restarts_in_a_window_break_the_pool() {
    let mut stage = Stage::new(restarts(2));
    stage.submit(4);
    for round in 0..2 {
        stage.begin(round);
        stage.die(round, KILLED);
        stage.welcome();
    }
    stage.begin(2);
    stage.die(2, KILLED);
    assert_eq!(stage.did(), [Did::Lost(2), Did::Broke, Did::Broken(3)]);
}

#[test]
fn restarts_of_an_earlier_window_are_forgotten() {
    let mut stage = Stage::new(restarts(1));
    for round in 0..5 {
        stage.submit(1);
        stage.begin(round);
        stage.die(round, KILLED);
        stage.welcome();
        stage.pass(ms(1_001));
    }
    assert_eq!(stage.pool.phase(), Phase::Running);
}

#[test]
fn a_broken_pool_runs_nothing_more_and_kills_who_stays() {
    let mut stage = Stage::new(Config { workers: 2, ..restarts(1) });
    stage.submit(8);
    stage.begin(0);
    stage.begin(1);
    stage.die(0, KILLED);
    stage.welcome();
    stage.begin(2);
    stage.die(2, KILLED);
    let did = stage.did();
    assert!(did.contains(&Did::Broke) && did.contains(&Did::Terminate(1)), "{did:?}");
    assert_eq!(stage.pool.pending(), 0);
    assert_eq!(stage.unclaimed().iter().sum::<usize>(), 0, "what has failed must not be run");
    assert_eq!(stage.after(ms(501)), [Did::Kill(1)], "the worker does not listen");
    stage.die(1, KILLED);
    assert!(stage.pool.is_over());
}

#[test]
fn terminate_retires_the_idle_ends_the_busy_and_kills_after_the_grace() {
    let mut stage = Stage::new(workers(2));
    stage.submit(1);
    let busy = usize::from(stage.load()[1] == 1);
    stage.begin(busy);
    stage.terminate();
    let did = stage.did();
    assert_eq!(did, [Did::Ended(0), Did::Terminate(busy), Did::Retire(1 - busy)]);
    let did = stage.after(ms(501));
    assert!(did.contains(&Did::Kill(0)) && did.contains(&Did::Kill(1)));
    stage.die(0, KILLED);
    stage.die(1, KILLED);
    assert_eq!(stage.did(), []);
    assert!(stage.pool.is_over());
}

#[test]
fn terminate_takes_unclaimed_tasks_out_of_the_rings() {
    let mut stage = Stage::new(workers(1));
    stage.submit(3);
    stage.begin(0);
    stage.terminate();
    assert_eq!(stage.unclaimed(), [0]);
    assert_eq!(stage.pool.pending(), 0);
}

#[test]
fn terminate_withdraws_starts_that_nobody_has_heard_of() {
    let mut stage = Stage::new(workers(1));
    stage.pool.grow(2);
    stage.terminate();
    assert_eq!(stage.did(), [Did::Retire(0)]);
    stage.die(0, ExitStatus::Code(0));
    assert!(stage.pool.is_over());
}

#[test]
fn nobody_waits_for_a_retry_after_the_end() {
    let mut stage = Stage::empty(workers(1), 8);
    stage.did();
    fail_to_start(&mut stage);
    assert!(stage.pool.next_deadline().is_some());
    stage.terminate();
    assert_eq!(stage.pool.next_deadline(), None);
    assert!(stage.pool.is_over());
}

#[test]
fn a_process_that_is_born_after_the_end_is_killed() {
    let mut stage = Stage::empty(workers(1), 8);
    stage.did();
    stage.terminate();
    stage.pool.started(stage.ids[0]);
    assert_eq!(stage.did(), [Did::Kill(0)]);
    assert!(!stage.pool.is_over());
    stage.die(0, KILLED);
    assert!(stage.pool.is_over());
}

#[test]
fn close_finishes_everything_and_then_lets_everybody_go() {
    let mut stage = Stage::new(workers(2));
    stage.submit(5);
    stage.pool.close();
    assert_eq!(stage.did(), []);
    stage.work_off(0);
    stage.work_off(1);
    assert_eq!(stage.did(), [Did::Retire(0), Did::Retire(1)]);
    stage.die(0, ExitStatus::Code(0));
    assert!(!stage.pool.is_over());
    stage.die(1, ExitStatus::Code(0));
    assert!(stage.pool.is_over());
    assert_eq!(stage.did(), [], "nobody is replaced");
}

#[test]
fn a_draining_pool_replaces_a_worker_only_if_there_is_work_for_it() {
    let mut stage = Stage::new(workers(2));
    stage.submit(1);
    let busy = usize::from(stage.load()[1] == 1);
    stage.pool.close();
    stage.die(1 - busy, KILLED);
    assert_eq!(stage.after(ms(1_000)), []);
    stage.die(busy, KILLED);
    assert_eq!(stage.after(ms(1_000)), [Did::Start]);
    stage.rise(2);
    assert_eq!(stage.work_off(2), [0]);
    assert_eq!(stage.did(), [Did::Retire(2)]);
}

#[test]
fn a_draining_pool_waits_for_open_streams() {
    let mut stage = Stage::new(workers(1));
    stage.pool.open_stream();
    stage.pool.close();
    stage.submit(1);
    assert_eq!(stage.work_off(0), [0]);
    assert_eq!(stage.did(), []);
    stage.pool.close_stream();
    assert_eq!(stage.did(), [Did::Retire(0)]);
}

#[test]
fn a_pool_that_was_shrunk_to_nobody_still_drains() {
    let mut stage = Stage::new(workers(1));
    assert_eq!(stage.pool.shrink(1, &mut stage.world).map(|who| who.len()), Some(1));
    stage.die(0, ExitStatus::Code(0));
    stage.submit(1);
    stage.pool.close();
    stage.settle();
    assert_eq!(stage.did(), [Did::Retire(0), Did::Start]);
    stage.rise(1);
    assert_eq!(stage.work_off(1), [0]);
}

#[test]
fn shrink_sends_all_or_nobody_home() {
    let mut stage = Stage::new(workers(3));
    stage.submit(1);
    let busy = stage.load().iter().position(|n| *n == 1).unwrap();
    assert_eq!(stage.pool.shrink(3, &mut stage.world), None);
    assert_eq!(stage.pool.target(), 3);
    assert_eq!(stage.did(), []);
    let gone = stage.pool.shrink(2, &mut stage.world).unwrap();
    assert!(gone.len() == 2 && !gone.contains(&stage.ids[busy]));
    assert_eq!(stage.pool.target(), 1);
    for id in gone {
        let worker = stage.ids.iter().position(|known| *known == id).unwrap();
        stage.die(worker, ExitStatus::Code(0));
    }
    assert!(!stage.did().contains(&Did::Start), "they are not replaced");
}

#[test]
fn a_worker_whose_result_has_arrived_can_be_sent_home() {
    let mut stage = Stage::new(workers(1));
    stage.submit(1);
    stage.begin(0);
    // It has published, and not yet cleared its page.
    stage.world.step(stage.ids[0]);
    stage.drain(0);
    assert!(stage.pool.shrink(1, &mut stage.world).is_some());
}

#[test]
fn grow_starts_workers_at_once() {
    let mut stage = Stage::new(workers(1));
    stage.pool.grow(2);
    assert_eq!(stage.did(), [Did::Start, Did::Start]);
    assert_eq!(stage.pool.target(), 3);
}

#[test]
fn renew_replaces_everybody_also_those_that_are_paused_or_used_up() {
    let mut stage = Stage::new(Config { tasks_per_worker: Some(1), ..workers(3) });
    stage.submit_with(Limits::NONE);
    let used_up = stage.load().iter().position(|n| *n == 1).unwrap();
    stage.begin(used_up);
    stage.end_job((used_up + 1) % 3);
    let now = stage.now();
    stage.pool.renew(now, &mut stage.world);
    let did = stage.did();
    for worker in 0..3 {
        assert!(did.contains(&Did::Retire(worker)), "{did:?}");
    }
    assert_eq!(did.iter().filter(|d| **d == Did::Start).count(), 3);
}

#[test]
fn a_worker_that_is_renewed_finishes_its_task_within_its_limits() {
    let mut stage = Stage::new(workers(1));
    stage.submit_with(hard(ms(50)));
    stage.begin(0);
    let now = stage.now();
    stage.pool.renew(now, &mut stage.world);
    stage.welcome();
    let did = stage.after(ms(51));
    assert!(did.contains(&Did::TimedOut(0)) && did.contains(&Did::Terminate(0)));
    assert!(!did.contains(&Did::Start), "it is replaced already");
}
