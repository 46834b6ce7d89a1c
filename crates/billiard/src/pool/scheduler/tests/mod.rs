//! The scheduler against a model of the world, and the stories of single decisions.

mod behaviour;
mod driver;
mod endings;
mod histories;
mod stage;
mod table;
mod world;
