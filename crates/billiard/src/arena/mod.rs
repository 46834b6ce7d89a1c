//! Shared memory: mappings that are never seen as slices, and what is allocated in them.
//!
//! Extents are for messages, cells for everything that lives longer. `README.md` beside this file tells how both work.
#![expect(unsafe_code, reason = "raw access to memory that other processes write lives here")]

mod cells;
mod extents;
mod gaps;
mod mapping;
mod rooms;
mod segment;
mod streaming;
mod window;

use cells::cannot;
pub use cells::{Cell, CellError, Parcel};
pub(crate) use extents::descriptor;
pub use extents::{Allocator, Area, Extent, Lease};
pub use mapping::Mapping;
pub use rooms::{Usage, trim, usage};
pub use window::{Shelf, Window};
