//! Shared memory: mappings that are never seen as slices, and what is allocated in them.
//!
//! Extents are for messages, cells for everything that lives longer, bundles for what is written once and read by many.
//! `README.md` beside this file tells how they work.
#![expect(unsafe_code, reason = "raw access to memory that other processes write lives here")]

mod bundle;
mod cells;
mod classes;
mod extents;
mod gaps;
mod mapping;
mod room;
mod rooms;
mod segment;
mod streaming;
mod window;

pub use bundle::{Bundle, Contents, Packing};
use cells::cannot;
pub use cells::{Cell, CellError, Parcel};
pub(crate) use extents::descriptor;
pub use extents::{Allocator, Area, Extent, Lease};
pub use mapping::Mapping;
pub use rooms::{Usage, trim, usage};
pub use window::{Shelf, Window};
