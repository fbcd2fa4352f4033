//! The commands that read the pinned maps themselves: they need no daemon, hold nobody up, and take the same memory for
//! a table of any size.
//!
//! Only the daemon knows who offers a route. It is asked in pages, and where it does not answer the output says so.

mod counts;
mod flows;
mod output;
mod routes;
mod sources;
mod trace;

use std::os::unix::net::UnixStream;

use anyhow::{Result, anyhow};

use crate::{
    control::{client::Client, socket},
    kernel::pinned::Pinned,
};

pub use counts::drops;
pub use flows::{By, Filter, flow_end, flow_list, flow_stats, nat_list, nat_stats};
pub use routes::{endpoint_list, route_get, route_list};
pub use trace::trace;

/// The pinned maps; where there are none, whether a daemon is there is said, too.
fn pinned(client: &Client) -> Result<Pinned> {
    Pinned::find(None, client.state_dir()).map_err(|error| {
        let socket = socket(client.state_dir());
        if UnixStream::connect(&socket).is_ok() {
            return error;
        }
        anyhow!("no daemon answers at {}, and {error:#}", socket.display())
    })
}
