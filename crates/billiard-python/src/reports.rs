//! Why a job has no result: the engine's report, handed to Python to be made an exception.

use billiard::pool::Report;
use billiard::pool::scheduler::Failure;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::python;

/// The `ExceptionInfo` for a report.
pub(crate) fn explain<'py>(
    py: Python<'py>,
    job: u64,
    report: &Report,
    what: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let known = PyDict::new(py);
    known.set_item("job", job)?;
    known.set_item("pid", report.pid)?;
    known.set_item("worker_name", report.worker_name.as_deref())?;
    known.set_item("last_stack", report.last_words.as_deref())?;
    known.set_item("what", what)?;
    let kind = match &report.why {
        Failure::Lost { status, ran, .. } => {
            known.set_item("exitcode", status.exitcode())?;
            known.set_item("runtime", ran.as_secs_f64())?;
            known.set_item("rss_peak", report.peak_rss_kib)?;
            known.set_item("oom_killed", report.out_of_memory)?;
            "lost"
        }
        Failure::TimeLimit { limit, .. } => {
            known.set_item("limit", limit.as_secs_f64())?;
            "time_limit"
        }
        Failure::Terminated { status } => {
            known.set_item("exitcode", status.map(|s| s.exitcode()))?;
            "terminated"
        }
        Failure::Broken => "broken",
    };
    python::tasks(py, kind)?.call((), Some(&known))
}

/// How a report is shown in an iterator over its kinds: whether a hard limit was passed.
pub(crate) fn passed_limit(report: &Report) -> Option<f64> {
    match report.why {
        Failure::TimeLimit { limit, .. } => Some(limit.as_secs_f64()),
        _ => None,
    }
}
