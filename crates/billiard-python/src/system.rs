//! What the kernel tells this process, and what this process tells the kernel.

use billiard::sys::{self, cpu, memory};
use pyo3::prelude::*;

use crate::errors::IntoPyErr;

/// The resident memory now, in KiB: of this process, or of another one.
///
/// Raises:
///     OSError: There is no such process.
#[pyfunction]
#[pyo3(signature = (pid = None))]
pub(crate) fn mem_rss(pid: Option<i32>) -> PyResult<u64> {
    pid.map_or_else(memory::rss_kib, memory::rss_kib_of).map_err(IntoPyErr::into_py_err)
}

/// The most resident memory that a process ever had, in KiB.
///
/// Raises:
///     OSError: There is no such process, or it has ended.
#[pyfunction]
pub(crate) fn mem_rss_peak(pid: i32) -> PyResult<u64> {
    memory::peak_rss_kib_of(pid).map_err(IntoPyErr::into_py_err)
}

/// What the system could give to new work without swapping, in KiB.
#[pyfunction]
pub(crate) fn mem_available() -> PyResult<u64> {
    memory::available_kib().map_err(IntoPyErr::into_py_err)
}

/// The least memory limit of this process's control groups, in bytes; None without a limit.
#[pyfunction]
pub(crate) fn mem_limit() -> Option<u64> {
    memory::limit_bytes()
}

/// How many processes the kernel has killed for memory in this process's control group; None where it does not count.
#[pyfunction]
pub(crate) fn oom_kills() -> Option<u64> {
    memory::oom_kills()
}

/// How many processors this process may use: affinity and control group quotas, rounded up, at least 1.
///
/// Args:
///     override: What the user ordered instead.
#[pyfunction]
#[pyo3(signature = (r#override = None))]
pub(crate) fn usable_cpu_count(r#override: Option<usize>) -> usize {
    cpu::usable(r#override)
}

/// Ask the kernel for a signal when the thread that started this process ends; 0 asks for none.
///
/// Raises:
///     OSError: No such signal.
#[pyfunction]
pub(crate) fn set_pdeathsig(signal: i32) -> PyResult<()> {
    sys::signal::set_parent_death(signal).map_err(IntoPyErr::into_py_err)
}

/// The signal that this process gets when the thread that started it ends; 0 for none.
#[pyfunction]
pub(crate) fn get_pdeathsig() -> PyResult<i32> {
    sys::signal::parent_death().map_err(IntoPyErr::into_py_err)
}

/// Whether this kernel gives out process descriptors.
#[pyfunction]
pub(crate) fn has_pidfd() -> bool {
    sys::has_pidfd()
}
