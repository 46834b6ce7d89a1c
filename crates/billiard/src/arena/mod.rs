//! Shared memory: mappings that are never seen as slices, and extents inside them.
#![expect(unsafe_code, reason = "raw access to memory that other processes write lives here")]

mod cells;
mod extents;
mod mapping;
mod segment;

pub use cells::{Cell, CellError, Parcel};
pub(crate) use extents::descriptor;
pub use extents::{Allocator, Area, Extent, Lease};
pub use mapping::Mapping;
