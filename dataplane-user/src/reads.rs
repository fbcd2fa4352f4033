//! The commands that read the pinned maps themselves: they need no daemon, hold nobody up, and take the same memory for
//! a table of any size.
//!
//! Only the daemon knows who offers a route. It is asked in pages, and where it does not answer the output says so.

mod counts;
mod output;
mod routes;
mod sources;
mod trace;

pub use counts::drops;
pub use routes::{endpoint_list, route_get, route_list};
pub use trace::trace;
