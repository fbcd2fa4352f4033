//! The log of changes: what goes wrong and what is well again, links, endpoints. Each is said once; a flood is cut short and
//! counted.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use tracing::{info, warn};

use super::Daemon;
use crate::{
    kernel::netlink::Link,
    wanted::{Destination, Offer, Picture},
};

/// Lines in each period.
const LINES: u32 = 40;
const PERIOD: Duration = Duration::from_secs(10);

/// What was said last.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// What is wrong, by what stays the same while numbers in it change.
    issues: BTreeMap<String, String>,
    endpoints: BTreeMap<Ipv4Addr, u32>,
    limit: Limit,
}

/// How much was said lately.
#[derive(Debug, Default)]
struct Limit {
    since: Option<Instant>,
    lines: u32,
    left_out: u32,
}

impl Limit {
    /// Whether one more line may be written; and how many were left out, once there is room again.
    fn admit(&mut self, now: Instant) -> (bool, Option<u32>) {
        let mut left_out = None;
        if self.since.is_none_or(|since| now.duration_since(since) >= PERIOD) {
            left_out = (self.left_out > 0).then_some(self.left_out);
            *self = Self { since: Some(now), lines: 0, left_out: 0 };
        }
        self.lines += 1;
        let admitted = self.lines <= LINES;
        self.left_out += u32::from(!admitted);
        (admitted, left_out)
    }
}

impl Journal {
    fn say(&mut self, line: impl FnOnce()) {
        let (admitted, left_out) = self.limit.admit(Instant::now());
        if let Some(left_out) = left_out {
            info!("{left_out} further changes were not logged");
        }
        if admitted {
            line();
        }
    }

    /// Logs the issues that are new, and those that are gone.
    fn follow_issues(&mut self, now: Vec<String>) {
        let now: BTreeMap<String, String> = now.into_iter().map(|issue| (identity(&issue), issue)).collect();
        let before = std::mem::take(&mut self.issues);
        for (_, issue) in now.iter().filter(|(identity, _)| !before.contains_key(*identity)) {
            self.say(|| warn!("health: {issue}"));
        }
        for (_, issue) in before.iter().filter(|(identity, _)| !now.contains_key(*identity)) {
            self.say(|| info!("health: no more: {issue}"));
        }
        self.issues = now;
    }
}

/// What stays the same of an issue while it counts other things of the same kind.
fn identity(issue: &str) -> String {
    let words = issue.trim_start_matches(|c: char| c.is_ascii_digit());
    if words.len() == issue.len() {
        return issue.to_owned();
    }
    words.split_once(", the first").map_or(words, |(kind, _)| kind).to_owned()
}

impl Daemon {
    /// Logs what went wrong and what is well again since this was called last.
    pub(super) fn log_health(&mut self) {
        let issues = self.all_complaints(&[]);
        self.journal.follow_issues(issues);
    }

    /// Logs that an uplink went up or down.
    pub(super) fn log_link(&mut self, link: &Link) {
        let Some(before) = self.policy.uplink(link.index) else { return };
        let states = [before, link].map(|link| match (link.up, link.carrier) {
            (true, true) => "up",
            (true, false) => "up, without carrier",
            (false, _) => "down",
        });
        if states[0] != states[1] {
            self.journal.say(|| info!(interface = link.name, "uplink is {}", states[1]));
        }
    }

    /// Logs the endpoints that came and went.
    pub(super) fn log_endpoints(&mut self, picture: &Picture) {
        let endpoint = |offer: &Offer| match offer {
            Offer::To(Destination::Endpoint(endpoint)) => Some((endpoint.address.into(), endpoint.ifindex)),
            _ => None,
        };
        let offers = picture.discovered.values().chain(picture.config.values());
        let now: BTreeMap<Ipv4Addr, u32> = offers.filter_map(endpoint).collect();
        let before = std::mem::replace(&mut self.journal.endpoints, now.clone());
        let all: BTreeSet<&Ipv4Addr> = before.keys().chain(now.keys()).collect();
        for address in all {
            match (before.get(address), now.get(address)) {
                (one, other) if one == other => {}
                (_, Some(ifindex)) => {
                    let interface = self.interface(*ifindex);
                    self.journal.say(|| info!(interface, "endpoint {address} added"));
                }
                (_, None) => self.journal.say(|| info!("endpoint {address} removed")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issue_is_the_same_while_its_numbers_change() {
        let count = |text| identity(text);
        assert_eq!(
            count("12 routes of BGP, the first to 10.0.0.0/8"),
            count("7 routes of BGP, the first to 10.1.0.0/16")
        );
        assert_ne!(count("uplink eth0 is down"), count("uplink eth1 is down"));
    }

    #[test]
    fn a_flood_is_cut_short_and_counted() {
        let (mut limit, start) = (Limit::default(), Instant::now());
        let admitted = (0..100).filter(|_| limit.admit(start).0).count();
        assert_eq!(admitted as u32, LINES);
        assert_eq!(limit.admit(start + PERIOD), (true, Some(100 - LINES)));
        assert_eq!(limit.admit(start + PERIOD), (true, None));
    }
}
