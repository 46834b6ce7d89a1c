//! `billiard._billiard`: the Rust engine behind the Python package. It turns Python objects into bytes and back, and Rust
//! errors into Python exceptions; no algorithm lives here.

mod errors;
mod fork;
mod process;
mod system;
mod wait;

use pyo3::prelude::*;

#[pymodule]
mod _billiard {
    #[pymodule_export]
    use crate::fork::fork;
    #[pymodule_export]
    use crate::process::Child;
    #[pymodule_export]
    use crate::system::{
        get_pdeathsig, has_pidfd, mem_available, mem_limit, mem_rss, mem_rss_peak, oom_kills, set_pdeathsig,
        usable_cpu_count,
    };

    #[pymodule_init]
    fn init(_module: &super::Bound<'_, super::PyModule>) -> super::PyResult<()> {
        // FORK: registers the handler that tells a process from its forked copies; it must be there before the first fork.
        let _ = billiard::sys::me();
        Ok(())
    }
}
