//! What clients of a cluster observed, and whether it can be true: strict serializability, watches, leases.

mod effects;
mod linear;
mod order;
mod recorder;
mod registers;
mod sightings;

pub use effects::Model;
pub use linear::{Call, linearizable};
pub use order::check_order;
pub use recorder::{Operation, Outcome, Recorder, Request};
pub use registers::check_registers;
pub use sightings::{Observer, Sighting, check_sightings, first_seen};
