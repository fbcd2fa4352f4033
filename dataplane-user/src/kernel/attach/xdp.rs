//! XDP links, in the driver: pinned, and updated in place by the next daemon.

use std::{error::Error, fmt, io};

use anyhow::{Context as _, Result};
use aya::programs::{Xdp, XdpMode, links::FdLink};

use super::{Place, link};
use crate::kernel::pins::Pins;

/// The kernel does not take the program at an interface's XDP; tc serves it all the same.
#[derive(Debug)]
pub struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Refused {}

/// Updates the pinned link to the program, or makes one. Another program there stays, and is an error.
pub(super) fn attach(program: &mut Xdp, pins: &Pins, place: &Place) -> Result<()> {
    let pin = link::pin(pins, place);
    if let Some(found) = link::open(&pin)? {
        let link = found.try_into().with_context(|| link::not_ours(&pin))?;
        if let Ok(id) = program.attach_to_link(link) {
            drop(program.take_link(id)?);
            return Ok(());
        }
        // The link lost its interface (ENOLINK): the name stands for a new one.
        link::forget(&pin)?;
    }
    // The mode of the stack (`XdpMode::Skb`) would only come after tc's work is half done.
    let attached = program.attach_to_if_index(place.ifindex, XdpMode::Driver);
    let id = attached.map_err(|error| Refused(explain(&error.into())))?;
    let link: FdLink = program.take_link(id)?.try_into().context("not an XDP link")?;
    link::keep(link, &pin)
}

fn explain(error: &anyhow::Error) -> String {
    let errno = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>()?.raw_os_error());
    match errno {
        Some(libc::EBUSY | libc::EEXIST) => {
            "another XDP program is attached to it (`ip link show` tells its id); remove that one with its own \
             tool, or write uplink-hook = \"tc\""
                .to_owned()
        }
        Some(libc::EOPNOTSUPP) => "its driver has no native XDP".to_owned(),
        _ => format!("{error:#}"),
    }
}
