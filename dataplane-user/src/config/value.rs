//! The strings of the file that stand for something.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use super::report::{Fault, quoted};
use super::suggest::nearest;

/// A word out of a few.
pub(super) trait Choice: Copy + 'static {
    /// Every choice, as it is written in the file.
    const ALL: &'static [(&'static str, Self)];
}

/// Takes one of the words.
pub(super) fn choice<T: Choice>(text: &str) -> Result<T, Fault> {
    if let Some((_, value)) = T::ALL.iter().find(|(word, _)| *word == text) {
        return Ok(*value);
    }
    let words = T::ALL.iter().map(|(word, _)| *word);
    let all = words.clone().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
    let mend = match nearest(text, words) {
        Some(word) => format!("did you mean \"{word}\"? The choices are {all}"),
        None => format!("write one of {all}"),
    };
    Err(Fault::new(format!("{} is none of the choices", quoted(text)), mend))
}

/// The word of a choice.
pub(super) fn word<T: Choice + PartialEq>(value: T) -> &'static str {
    T::ALL.iter().find(|(_, choice)| *choice == value).map_or("", |(word, _)| word)
}

/// The name of a node: what a host name can be, and what fits into a line of a log.
pub(super) fn node_name(text: &str) -> Result<String, Fault> {
    // HOST_NAME_MAX is 64 on Linux, a domain name has 253 characters at most (RFC 1035 section 2.3.4).
    let fits = (1..=253).contains(&text.len()) && !text.chars().any(|c| c.is_whitespace() || c.is_control());
    fits.then(|| text.to_owned()).ok_or_else(|| {
        let message = format!("{} is no node's name", quoted(text));
        Fault::new(
            message,
            "write 1 to 253 characters without spaces, or remove the line: the default is the host name",
        )
    })
}

/// The name of a network interface, by the rules of the kernel's `dev_valid_name` (`net/core/dev.c`).
pub(super) fn interface(text: &str) -> Result<String, Fault> {
    let problem =
        if matches!(text, "." | "..") { Some("is a directory's name") } else { interface_problem(text) };
    match problem {
        None => Ok(text.to_owned()),
        Some(problem) => Err(Fault::new(
            format!("{} cannot be an interface: it {problem}", quoted(text)),
            "write a name that `ip link` shows",
        )),
    }
}

/// What the names of interfaces begin with.
pub(super) fn interface_prefix(text: &str) -> Result<String, Fault> {
    match interface_problem(text) {
        None => Ok(text.to_owned()),
        Some(problem) => Err(Fault::new(
            format!("{} cannot begin an interface's name: it {problem}", quoted(text)),
            "write for example \"cali\"",
        )),
    }
}

fn interface_problem(text: &str) -> Option<&'static str> {
    /// IFNAMSIZ is 16, with the NUL at the end.
    const LONGEST: usize = 15;
    match text {
        "" => Some("is empty"),
        _ if text.len() > LONGEST => Some("is longer than 15 bytes"),
        _ if text.chars().any(char::is_whitespace) => Some("contains white space"),
        _ if text.contains(['/', ':']) => Some("contains `/` or `:`"),
        _ if text.chars().any(char::is_control) => Some("contains a control character"),
        _ => None,
    }
}

/// A path from the root on.
pub(super) fn absolute_path(text: &str) -> Result<PathBuf, Fault> {
    if text.chars().any(char::is_control) {
        return Err(Fault::new(format!("{} contains a control character", quoted(text)), "remove it"));
    }
    if !text.starts_with('/') {
        let message = format!("{} is not an absolute path", quoted(text));
        return Err(Fault::new(message, "write the whole path, from `/` on"));
    }
    Ok(PathBuf::from(text))
}

/// The daemon's directory: the socket `control.sock` must fit behind it.
pub(super) fn state_directory(text: &str) -> Result<PathBuf, Fault> {
    /// `sun_path` has 108 bytes with the NUL at the end (unix(7)).
    const LONGEST: usize = 107 - "/control.sock".len();
    let path = absolute_path(text)?;
    if text.len() > LONGEST {
        let message =
            format!("the path is {} bytes long, which leaves no room for its socket's name", text.len());
        return Err(Fault::new(message, format!("use a path of at most {LONGEST} bytes")));
    }
    Ok(path)
}

/// `A-B`, both from 1 to 65535.
pub(super) fn ports(text: &str) -> Result<RangeInclusive<u16>, Fault> {
    let fault = |problem: &str, mend: &str| Err(Fault::new(format!("{} {problem}", quoted(text)), mend));
    let Some((first, last)) = text.split_once('-') else {
        return fault("is no range of ports", "write the first and the last, such as \"49152-65535\"");
    };
    match (port(first), port(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        (Some(first), Some(last)) => fault("ends before it begins", &format!("write \"{last}-{first}\"")),
        _ => fault("is no range of ports", "write two numbers from 1 to 65535, such as \"49152-65535\""),
    }
}

/// `ADDR:PORT`.
pub(super) fn socket_address(text: &str) -> Result<SocketAddrV4, Fault> {
    let parsed = text.split_once(':').and_then(|(address, number)| {
        Some(SocketAddrV4::new(address.parse::<Ipv4Addr>().ok()?, port(number)?))
    });
    parsed.ok_or_else(|| {
        let message = format!("{} is no IPv4 address with a port", quoted(text));
        Fault::new(message, "write for example \"10.141.0.1:179\"")
    })
}

/// A port number in plain digits, other than 0.
fn port(text: &str) -> Option<u16> {
    let plain = !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| plain)
}
