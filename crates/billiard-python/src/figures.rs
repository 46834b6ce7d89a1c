//! What a pool can tell about itself.

use billiard::pool::engine::Colleague;
use billiard::pool::scheduler::WorkerState;
use billiard::sys::memory;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::engine::Engine;
use crate::errors::IntoPyErr;

/// Tell what a pool has done, and what it is doing.
///
/// Returns:
///     `tasks`: counts of those that are `pending` (and of these, `queued`: given to no worker yet), have `finished`, were
///     `lost` with a worker, `overdue`, `terminated`, `withdrawn`, or never run by a `broken` pool, and how often one was
///     `recalled` from one worker and given to another; `exits`: how many workers have ended; `workers`: for each its
///     `pid`, `name`, `state`, tasks `finished`, tasks `handed` to it, seconds that the running one has been `busy` (None:
///     idle), and resident memory `rss` in KiB.
#[pyfunction]
#[pyo3(signature = (engine) -> "dict[str, Any]")]
pub(crate) fn pool_figures<'py>(py: Python<'py>, engine: &Engine) -> PyResult<Bound<'py, PyDict>> {
    let figures = engine.shared().engine.figures().map_err(IntoPyErr::into_py_err)?;
    let totals = figures.totals;
    let tasks = PyDict::new(py);
    for (name, count) in [
        ("pending", figures.pending as u64),
        ("queued", figures.queued as u64),
        ("finished", totals.finished),
        ("lost", totals.lost),
        ("overdue", totals.overdue),
        ("terminated", totals.terminated),
        ("withdrawn", totals.withdrawn),
        ("broken", totals.broken),
        ("recalled", totals.recalled),
    ] {
        tasks.set_item(name, count)?;
    }
    let workers: PyResult<Vec<_>> = figures.workers.into_iter().map(|one| worker(py, one)).collect();
    let told = PyDict::new(py);
    told.set_item("tasks", tasks)?;
    told.set_item("exits", totals.exits)?;
    told.set_item("workers", PyList::new(py, workers?)?)?;
    Ok(told)
}

fn worker(py: Python<'_>, one: Colleague) -> PyResult<Bound<'_, PyDict>> {
    let state = match one.state {
        WorkerState::Starting => "starting",
        WorkerState::Up => "up",
        WorkerState::Leaving => "leaving",
        WorkerState::Dying => "dying",
    };
    let told = PyDict::new(py);
    told.set_item("pid", one.pid)?;
    told.set_item("name", &*one.name)?;
    told.set_item("state", state)?;
    told.set_item("finished", one.finished)?;
    told.set_item("handed", one.handed)?;
    told.set_item("busy", one.busy.map(|busy| busy.as_secs_f64()))?;
    told.set_item("rss", memory::rss_kib_of(one.pid).ok())?;
    Ok(told)
}
