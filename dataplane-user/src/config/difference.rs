//! What two files say differently, in words for the log.

use std::fmt::Display;

use super::Config;

impl Config {
    /// What `new` adds, removes and changes; empty where it says the same.
    pub fn differences(&self, new: &Self) -> Vec<String> {
        let endpoint = |endpoint: &super::Endpoint| format!("{} ({})", endpoint.address, endpoint.interface);
        let route = |route: &super::Route| format!("{} via {}", route.to, route.via);
        let source = |rule: &super::Masquerade| rule.source;
        let lists = [
            difference("pool", &self.pools, &new.pools, |pool| *pool),
            difference("block", &self.blocks, &new.blocks, |block| *block),
            difference("endpoint", &self.endpoints, &new.endpoints, endpoint),
            difference("route", &self.routes, &new.routes, route),
            difference("masquerade", &self.masquerade, &new.masquerade, source),
        ];
        let sections = [
            ("node", self.node != new.node),
            ("datapath", self.datapath != new.datapath),
            ("timeouts", self.timeouts != new.timeouts),
            ("bgp", self.bgp != new.bgp),
            ("kernel", self.kernel != new.kernel),
            ("metrics", self.metrics != new.metrics),
        ];
        let changed = sections.iter().filter(|(_, changed)| *changed);
        lists.into_iter().flatten().chain(changed.map(|(name, _)| format!("[{name}] changed"))).collect()
    }
}

/// Entries of a list that are named; of more only the number.
const NAMED: usize = 5;

fn difference<T: PartialEq, D: Display>(
    name: &str,
    before: &[T],
    after: &[T],
    show: impl Fn(&T) -> D,
) -> Option<String> {
    let side = |sign: char, these: &[T], others: &[T]| {
        let these: Vec<&T> = these.iter().filter(|one| !others.contains(one)).collect();
        let mut words: Vec<String> =
            these.iter().take(NAMED).map(|one| format!("{sign}{}", show(one))).collect();
        if these.len() > NAMED {
            words.push(format!("{sign}{} more", these.len() - NAMED));
        }
        words
    };
    let words = [side('+', after, before), side('-', before, after)].concat();
    (!words.is_empty()).then(|| format!("[[{name}]] {}", words.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn additions_and_removals_are_named() {
        let (mut old, mut new) = (Config::default_node(), Config::default_node());
        assert!(old.differences(&new).is_empty());
        old.blocks = vec!["172.19.35.0/24".parse().unwrap(), "172.19.36.0/24".parse().unwrap()];
        new.blocks = vec!["172.19.36.0/24".parse().unwrap(), "172.19.41.0/24".parse().unwrap()];
        new.datapath.discover = !new.datapath.discover;
        new.pools = (0..8).map(|number| format!("10.{number}.0.0/16").parse().unwrap()).collect();
        assert_eq!(
            old.differences(&new),
            [
                "[[pool]] +10.0.0.0/16, +10.1.0.0/16, +10.2.0.0/16, +10.3.0.0/16, +10.4.0.0/16, +3 more",
                "[[block]] +172.19.41.0/24, -172.19.35.0/24",
                "[datapath] changed"
            ]
        );
    }
}
