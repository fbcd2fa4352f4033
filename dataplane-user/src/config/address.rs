//! IPv4 addresses and prefixes in the file, and those that no container or route can have.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::report::{Fault, quoted};

/// What is never routed to a container or to another node, with the reason.
const RESERVED: [(Ipv4Net, &str); 5] = [
    (net(0, 8), "\"this network\" (RFC 1122)"),
    (net(127, 8), "loopback (RFC 1122)"),
    (Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16), "link-local (RFC 3927)"),
    (net(224, 4), "multicast (RFC 1112)"),
    (net(240, 4), "reserved (RFC 1112)"),
];

const fn net(first: u8, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(first, 0, 0, 0), length)
}

/// `ADDRESS/LENGTH` without host bits.
pub(super) fn any_network(text: &str) -> Result<Ipv4Net, Fault> {
    let Some((address, length)) = text.split_once('/') else {
        let address = self::address(text)?;
        let message = format!("{} has no prefix length", quoted(text));
        return Err(Fault::new(
            message,
            format!("write `{address}/32` for this one address, or `ADDRESS/LENGTH`"),
        ));
    };
    let address = self::address(address)?;
    let network =
        length.parse().ok().and_then(|length| Ipv4Net::new(address, length).ok()).ok_or_else(|| {
            Fault::new(
                format!("{} is no prefix length", quoted(length)),
                "write a number from 0 to 32 behind the `/`",
            )
        })?;
    let plain = network.trunc();
    if plain != network {
        return Err(Fault::new(format!("{} has host bits set", quoted(text)), format!("write `{plain}`")));
    }
    if plain.to_string() != text {
        return Err(Fault::new(
            format!("{} is an unusual spelling", quoted(text)),
            format!("write `{plain}`"),
        ));
    }
    Ok(plain)
}

/// `ADDRESS/LENGTH` that containers can have.
pub(super) fn network(text: &str) -> Result<Ipv4Net, Fault> {
    let network = any_network(text)?;
    if network.prefix_len() == 0 {
        return Err(Fault::new(
            format!("`{network}` is every address"),
            "write the prefix that is meant; the default route is taken from the kernel",
        ));
    }
    // Two prefixes overlap only where one contains the other.
    let overlapped =
        RESERVED.iter().find(|(reserved, _)| reserved.contains(&network) || network.contains(reserved));
    match overlapped {
        None => Ok(network),
        Some((reserved, what)) => Err(Fault::new(
            format!("`{network}` overlaps {reserved}, which is {what}"),
            "write a prefix that containers can have",
        )),
    }
}

/// The address of one host.
pub(super) fn host(text: &str) -> Result<Ipv4Addr, Fault> {
    let address = address(text)?;
    match RESERVED.iter().find(|(reserved, _)| reserved.contains(&address)) {
        None => Ok(address),
        Some((reserved, what)) => Err(Fault::new(
            format!("`{address}` lies in {reserved}, which is {what}"),
            "write an address that one host can have",
        )),
    }
}

/// The address of a neighbour: one host's, and a link-local one too, which point-to-point fabrics use.
pub(super) fn neighbour(text: &str) -> Result<Ipv4Addr, Fault> {
    let address = address(text)?;
    if address.is_link_local() { Ok(address) } else { host(text) }
}

/// The address of a peer: a neighbour's, and a loopback one too, where another daemon of this host listens.
pub(super) fn peer(text: &str) -> Result<Ipv4Addr, Fault> {
    let address = address(text)?;
    if address.is_loopback() { Ok(address) } else { neighbour(text) }
}

/// Any address but 0.0.0.0: a BGP identifier (RFC 6286 section 2.1).
pub(super) fn identifier(text: &str) -> Result<Ipv4Addr, Fault> {
    let address = address(text)?;
    if address.is_unspecified() {
        return Err(Fault::new("`0.0.0.0` is no identifier", "write an address of this node"));
    }
    Ok(address)
}

fn address(text: &str) -> Result<Ipv4Addr, Fault> {
    text.parse().map_err(|_| {
        if text.contains(':') {
            return Fault::new(
                format!("{} is no IPv4 address", quoted(text)),
                "write an IPv4 one: IPv6 is not supported",
            );
        }
        let (message, mend) = match text.split_once('/') {
            Some((address, _)) if address.parse::<Ipv4Addr>().is_ok() => {
                (format!("{} is a prefix, not an address", quoted(text)), format!("write `{address}`"))
            }
            _ => (
                format!("{} is no IPv4 address", quoted(text)),
                "write four numbers from 0 to 255, such as 172.19.35.2".to_owned(),
            ),
        };
        Fault::new(message, mend)
    })
}
