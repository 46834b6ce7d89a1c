//! Child processes: handles that know exactly when and how a child ended.

mod child;

pub use child::{Child, Waited};
