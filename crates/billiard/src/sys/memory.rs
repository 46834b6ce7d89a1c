//! Memory of this process.
