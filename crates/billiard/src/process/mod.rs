//! Child processes: how they are started other than by a plain fork, handles that know exactly when and how a child ended,
//! and a child's own view of its parent. How it all fits together is told in `README.md` beside this file.

mod child;
mod parent;
pub mod zygote;

pub use child::{Child, Waited};
pub use parent::{Orphan, Parent};
