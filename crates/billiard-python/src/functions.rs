//! Functions by number: a plain function is described to each worker once.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use billiard::pool::engine::Engine;
use pyo3::prelude::*;

use crate::codec::Encoder;
use crate::errors::IntoPyErr;
use crate::python;

#[derive(Debug, Default)]
struct Table {
    /// By address; the function is kept alive, so that the address stays its own.
    numbers: HashMap<usize, (Py<PyAny>, u32)>,
    last: Option<(usize, u32)>,
}

/// The functions that a pool has seen.
#[derive(Debug, Default)]
pub(crate) struct Functions {
    table: Mutex<Table>,
}

impl Functions {
    /// The number of a plain module-level function; 0 for everything else, which travels with each task.
    pub(crate) fn number(
        &self,
        engine: &Engine,
        encoder: &Encoder,
        function: &Bound<'_, PyAny>,
    ) -> PyResult<u32> {
        if !encoder.sends_by_name() {
            return Ok(0);
        }
        let py = function.py();
        let address = function.as_ptr() as usize;
        {
            let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((last, number)) = table.last
                && last == address
            {
                return Ok(number);
            }
            if let Some(number) = table.numbers.get(&address).map(|(_, number)| *number) {
                table.last = Some((address, number));
                return Ok(number);
            }
        }
        let class = function.get_type();
        if !class.is(python::function_type(py)?) && !class.is(python::builtin_type(py)?) {
            return Ok(0);
        }
        let pickled = encoder.pickle(function, &[])?;
        // A reducer may have turned it into something large; then it is no plain function.
        if pickled.has_buffers() || pickled.bytes.len() > 4096 {
            return Ok(0);
        }
        let number = engine.register(&pickled.bytes).map_err(IntoPyErr::into_py_err)?;
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = table.numbers.entry(address).or_insert_with(|| (function.clone().unbind(), number));
        Ok(kept.1)
    }
}
