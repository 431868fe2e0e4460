//! Listeners: sockets, connections dealt to workers, and handshakes.
//!
//! A connection goes one way: [`bind`] makes the sockets, an [`Acceptor`] takes connections off them on a thread of its own, counts
//! them and deals them to the workers, and [`establish`] makes a [`Stream`] of each on its worker's runtime. Everything on the way
//! is bounded: connections in all and from one source, handshakes at one time, the time of one, and the lines that are logged
//! about strangers.

mod acceptor;
mod bind;
mod handshake;
mod permit;
mod stream;
mod throttle;

pub(crate) use acceptor::{Acceptor, AcceptorOptions, Incoming};
pub(crate) use bind::bind;
pub(crate) use handshake::{PendingHandshakes, establish};
pub(crate) use stream::Stream;

#[cfg(test)]
mod tests;
