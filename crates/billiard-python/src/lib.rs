//! `billiard._billiard`: the Rust engine behind the Python package. It turns Python objects into bytes and back, and Rust
//! errors into Python exceptions; no algorithm lives here.

mod account;
mod buffers;
mod bundle;
mod calls;
mod cargo;
mod codec;
mod conditions;
mod connection;
mod door;
mod engine;
mod errors;
mod figures;
mod fork;
mod functions;
mod handles;
mod heap;
mod holding;
mod letters;
mod locks;
mod manager;
mod mouth;
mod named;
mod outlet;
mod pickling;
mod plain;
mod process;
mod pump;
mod python;
mod queue;
mod raw;
mod readiness;
mod reports;
mod semlock;
mod shared;
mod stream;
mod synchronized;
mod system;
mod traffic;
mod wait;
mod worker;
mod zygote;

use std::collections::BTreeMap;

use pyo3::prelude::*;

#[pymodule]
mod _billiard {
    #[pymodule_export]
    use super::build_info;
    #[pymodule_export]
    use crate::buffers::SharedView;
    #[pymodule_export]
    use crate::bundle::Bundle;
    #[pymodule_export]
    use crate::conditions::{Barrier, Condition, Event};
    #[pymodule_export]
    use crate::connection::{Connection, pipe};
    #[pymodule_export]
    use crate::door::{Doorman, answer_challenge, introduce, judge_answer, new_challenge};
    #[pymodule_export]
    use crate::engine::Engine;
    #[pymodule_export]
    use crate::figures::pool_figures;
    #[pymodule_export]
    use crate::fork::fork;
    #[pymodule_export]
    use crate::handles::{ApplyResult, MapResult};
    #[pymodule_export]
    use crate::heap::{Block, shared_file, shared_trim, shared_usage};
    #[pymodule_export]
    use crate::locks::{PyBoundedSemaphore, PyLock, PyRLock, PySemaphore};
    #[pymodule_export]
    use crate::manager::{Hall, Line};
    #[pymodule_export]
    use crate::mouth::Mouth;
    #[pymodule_export]
    use crate::named::{named_create, named_let_go, named_open, named_remove, named_remove_all, named_sweep};
    #[pymodule_export]
    use crate::outlet::{Inlet, Outlet};
    #[pymodule_export]
    use crate::process::{Child, Parent, memory_file, spawn};
    #[pymodule_export]
    use crate::pump::Pump;
    #[pymodule_export]
    use crate::queue::MessageQueue;
    #[pymodule_export]
    use crate::raw::read;
    #[pymodule_export]
    use crate::readiness::wait;
    #[pymodule_export]
    use crate::semlock::SemLock;
    #[pymodule_export]
    use crate::stream::{Feeder, IMapIterator, IMapUnorderedIterator};
    #[pymodule_export]
    use crate::synchronized::{Guarded, GuardedAttribute};
    #[pymodule_export]
    use crate::system::{
        get_pdeathsig, has_pidfd, mem_available, mem_limit, mem_rss, mem_rss_peak, oom_kills, set_pdeathsig,
        usable_cpu_count,
    };
    #[pymodule_export]
    use crate::worker::{Runtime, Seat};
    #[pymodule_export]
    use crate::zygote::{Zygote, ZygoteServer, packet_pair};

    #[pymodule_init]
    fn init() {
        // FORK: registers the handler that tells a process from its forked copies; it must be there before the first fork.
        let _ = billiard::sys::me();
        super::wait::note_first_mask();
        // Without descriptors now, it is tried again when somebody waits.
        let _ = super::wait::prepare();
    }
}

/// What this extension was built from, and how: `version`, `profile`, `features`.
#[pyfunction]
fn build_info() -> BTreeMap<&'static str, &'static str> {
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    let features = if cfg!(feature = "abi3") { "abi3" } else { "" };
    BTreeMap::from([("version", env!("CARGO_PKG_VERSION")), ("profile", profile), ("features", features)])
}
