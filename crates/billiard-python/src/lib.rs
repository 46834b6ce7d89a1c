//! `billiard._billiard`: the Rust engine behind the Python package. It turns Python objects into bytes and back, and Rust
//! errors into Python exceptions; no algorithm lives here.

use pyo3::prelude::*;

#[pymodule]
mod _billiard {}
