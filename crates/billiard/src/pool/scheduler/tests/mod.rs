//! The scheduler against a model of the world, and the stories of single decisions.

mod driver;
mod histories;
mod world;
