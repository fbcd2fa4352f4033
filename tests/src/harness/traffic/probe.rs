//! `ping` and `traceroute`.

use std::{fmt::Display, net::Ipv4Addr};

use anyhow::{Context, Result, bail, ensure};

use crate::harness::{netns::Namespace, topology::parse};

/// What `ping` saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ping {
    /// Echo requests sent.
    pub sent: u32,
    /// Distinct echo replies received.
    pub received: u32,
    /// Further replies to requests that had been answered.
    pub duplicates: u32,
    /// ICMP errors received, or reported by the sender's own stack.
    pub errors: u32,
    /// All that `ping` said.
    pub text: String,
}

impl Ping {
    /// # Errors
    /// Unless every request was answered once, and nothing else came.
    pub fn all_answered(&self) -> Result<()> {
        let clean = self.received == self.sent && self.duplicates == 0 && self.errors == 0;
        ensure!(clean, "not every echo request was answered once: {}", self.text.trim());
        Ok(())
    }

    /// Checks that the node refused it with an ICMP error: communication administratively prohibited.
    ///
    /// # Errors
    /// If something was answered, or nothing refused.
    pub fn all_refused(&self) -> Result<()> {
        let refused = self.text.matches("Packet filtered").count();
        ensure!(self.received == 0 && refused > 0, "the node has refused nothing: {}", self.text.trim());
        Ok(())
    }

    /// Checks that nothing came back.
    ///
    /// # Errors
    /// If anything came back.
    pub fn none_answered(&self) -> Result<()> {
        ensure!(self.received == 0 && self.errors == 0, "something came back: {}", self.text.trim());
        Ok(())
    }
}

/// Pings `count` times in quick succession, and waits for answers for at most a second after the last.
///
/// No answer is a result, too; see [`Ping::all_answered`].
///
/// # Errors
/// If `ping` could not run or send.
pub fn ping(from: &Namespace, to: impl Display, count: u32) -> Result<Ping> {
    ping_with(from, to, count, &[])
}

/// [`ping`] with further options, such as `["-s", "1472", "-M", "do"]`.
///
/// # Errors
/// If `ping` could not run or send.
pub fn ping_with(from: &Namespace, to: impl Display, count: u32, options: &[&str]) -> Result<Ping> {
    let (to, count) = (parse(to)?.to_string(), count.to_string());
    let command = ["ping", "-n", "-i", "0.01", "-W", "1", "-c", &count];
    let output = from.run(command.iter().chain(options).chain(&[to.as_str()]));
    // 1 means that not all were answered (ping(8)).
    match output.code() {
        Some(0 | 1) => parse_ping(&output.stdout)
            .with_context(|| format!("`{}` said {:?} {:?}", output.command, output.stdout, output.stderr)),
        _ => bail!("{:#}", output.ok().map_or_else(|error| error, anyhow::Error::msg)),
    }
}

fn parse_ping(text: &str) -> Result<Ping> {
    let summary = text
        .lines()
        .find(|line| line.contains("packets transmitted"))
        .context("the output has no line \"packets transmitted\"")?;
    let mut ping = Ping { sent: 0, received: 0, duplicates: 0, errors: 0, text: text.to_owned() };
    for part in summary.split(", ") {
        let Some((number, what)) = part.split_once(' ') else { continue };
        let field = match what {
            "packets transmitted" => &mut ping.sent,
            "received" => &mut ping.received,
            "duplicates" => &mut ping.duplicates,
            "errors" => &mut ping.errors,
            _ => continue,
        };
        *field = number.trim_start_matches('+').parse().with_context(|| format!("{part} is no number"))?;
    }
    Ok(ping)
}

/// A step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Who answered; none if nobody did within a second.
    pub address: Option<Ipv4Addr>,
    /// The kind of unreachable it answered with (`!N`, `!H`, `!X`), if it was one.
    pub mark: Option<String>,
}

/// The path to an address, by UDP probes, of at most eight hops.
///
/// # Errors
/// If `traceroute` could not run or send.
pub fn traceroute(from: &Namespace, to: impl Display) -> Result<Vec<Hop>> {
    traceroute_with(from, to, &[])
}

/// [`traceroute`] with further options, such as `["-I"]` for ICMP and `["-T"]` for TCP probes.
///
/// # Errors
/// If `traceroute` could not run or send.
pub fn traceroute_with(from: &Namespace, to: impl Display, options: &[&str]) -> Result<Vec<Hop>> {
    let to = parse(to)?.to_string();
    let command = ["traceroute", "-n", "-q1", "-w1", "-m8"];
    let text = from.run(command.iter().chain(options).chain(&[to.as_str()])).ok()?;
    parse_traceroute(&text).with_context(|| format!("traceroute said {text:?}"))
}

fn parse_traceroute(text: &str) -> Result<Vec<Hop>> {
    text.lines()
        .filter(|line| !line.starts_with("traceroute to") && !line.trim().is_empty())
        .map(|line| {
            let mut words = line.split_whitespace().skip(1);
            let address = match words.next().context("a hop without an address")? {
                "*" => None,
                address => Some(parse(address)?),
            };
            Ok(Hop { address, mark: words.find(|word| word.starts_with('!')).map(str::to_owned) })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_ping_says() -> Result<()> {
        let ping = parse_ping(
            "5 packets transmitted, 3 received, +1 duplicates, +2 errors, 40% packet loss, time 4ms\n",
        )?;
        assert_eq!((ping.sent, ping.received, ping.duplicates, ping.errors), (5, 3, 1, 2));
        assert!(ping.all_answered().is_err());
        assert!(parse_ping("ping: connect: Network is unreachable").is_err());
        Ok(())
    }

    #[test]
    fn reads_what_traceroute_says() -> Result<()> {
        let text = "traceroute to 192.0.2.1 (192.0.2.1), 8 hops max, 60 byte packets\n \
                    1  10.141.0.1  0.050 ms\n 2  *\n 3  192.0.2.1  0.071 ms !X\n";
        let hops = parse_traceroute(text)?;
        assert_eq!(hops[0], Hop { address: Some(Ipv4Addr::new(10, 141, 0, 1)), mark: None });
        assert_eq!(hops[1], Hop { address: None, mark: None });
        assert_eq!(hops[2], Hop { address: Some(Ipv4Addr::new(192, 0, 2, 1)), mark: Some("!X".to_owned()) });
        Ok(())
    }
}
