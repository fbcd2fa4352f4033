//! Rules of iptables and nftables that want to see every packet of a connection: what BPF carries does not pass them.
//!
//! Rules for the first packets of a connection (policy, services, translation) hold, since the kernel sees those.

use std::{
    fmt,
    process::{Command, Stdio},
};

/// A rule, and what it does to each packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What lists it: `iptables-save` or `nft list ruleset`.
    pub source: &'static str,
    /// The rule as it is listed.
    pub text: String,
    /// What it does.
    pub does: &'static str,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it {}: `{}` ({})", self.does, self.text, self.source)
    }
}

/// What lists the rules.
const LISTS: [(&str, &[&str]); 3] =
    [("iptables-save", &[]), ("iptables-legacy-save", &[]), ("nft", &["list", "ruleset"])];

/// Words of a rule, as iptables and nftables write them, and what it does that has them.
const WORDS: [(&str, &str); 13] = [
    ("-j DSCP", "sets the DSCP"),
    ("ip dscp set", "sets the DSCP"),
    ("-j TOS", "sets the type of service"),
    ("-j TTL", "sets the TTL"),
    ("ip ttl set", "sets the TTL"),
    ("-j NFQUEUE", "asks a program"),
    ("queue to", "asks a program"),
    ("-j TPROXY", "redirects to a local socket"),
    ("tproxy to", "redirects to a local socket"),
    ("-j TEE", "copies packets"),
    ("dup to", "copies packets"),
    ("-j CLASSIFY", "sets the priority"),
    ("meta priority set", "sets the priority"),
];

/// Words of a rule that bounds a rate or an amount, unless it only logs.
const BOUNDS: [&str; 6] =
    ["-m limit", "-m hashlimit", "-m quota", "limit rate", "quota over", "-m connbytes"];

/// What says that a rule is for the first packets, or for no forwarded ones.
const HARMLESS: [&str; 9] = [
    " --ctstate NEW ",
    "ct state new ",
    " --syn ",
    "-j LOG",
    "-j NFLOG",
    " log ",
    "-A INPUT ",
    "-A OUTPUT ",
    "-j CT ",
];

/// Families of tables of nftables that see no IPv4 packet of an interface.
const OTHER_FAMILIES: [&str; 3] = ["ip6 ", "arp ", "bridge "];

/// The rules of this namespace that want every packet, as far as the programs that list rules are there.
pub fn wanting_every_packet() -> Vec<Rule> {
    let lists = LISTS.iter().filter_map(|(program, arguments)| {
        let output =
            Command::new(program).args(*arguments).stdin(Stdio::null()).stderr(Stdio::null()).output();
        let text = String::from_utf8(output.ok().filter(|output| output.status.success())?.stdout).ok()?;
        Some(find(program, &text))
    });
    let mut rules: Vec<Rule> = Vec::new();
    for rule in lists.flatten() {
        if !rules.iter().any(|known| known.text == rule.text) {
            rules.push(rule);
        }
    }
    rules
}

fn find(source: &'static str, text: &str) -> Vec<Rule> {
    let rule = |line: &str| {
        let text = line.trim();
        // The first words of a negation are those of what it negates.
        let is_harmless = |words: &str| text.contains(words) && !text.contains(&format!(" !{words}"));
        if HARMLESS.iter().any(|words| is_harmless(words)) {
            return None;
        }
        let changes = WORDS.iter().find(|(words, _)| text.contains(words)).map(|(_, does)| *does);
        let bounds = BOUNDS.iter().any(|words| text.contains(words)).then_some("bounds a rate or an amount");
        Some(Rule { source, text: text.to_owned(), does: changes.or(bounds)? })
    };
    // Tables of other families see none of the packets.
    let mut is_other = false;
    let of_ipv4 = text.lines().filter(|line| {
        if let Some(table) = line.strip_prefix("table ") {
            is_other = OTHER_FAMILIES.iter().any(|family| table.starts_with(family));
        }
        // A chain or set may be named as one likes.
        !is_other && !line.trim_end().ends_with('{')
    });
    of_ipv4.filter_map(rule).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wants_every_packet_is_found() {
        let iptables = "*mangle\n-A POSTROUTING -o eth0 -j DSCP --set-dscp 0x0a\nCOMMIT\n*filter\n\
                        -A FORWARD -i cali1 -m hashlimit --hashlimit-above 1mb/s --hashlimit-name x -j DROP\n\
                        -A FORWARD -j NFQUEUE --queue-num 1\n";
        let found: Vec<_> = find("iptables-save", iptables).into_iter().map(|rule| rule.does).collect();
        assert_eq!(found, ["sets the DSCP", "bounds a rate or an amount", "asks a program"]);
        let nftables = "table ip limits {\n  chain queue to {\n    ip saddr 172.19.0.0/16 limit rate over 1 mbytes/second drop\n\
                        \x20   meta priority set 1:1\n  }\n}\n";
        let found: Vec<_> = find("nft", nftables).into_iter().map(|rule| rule.does).collect();
        assert_eq!(found, ["bounds a rate or an amount", "sets the priority"]);
    }

    #[test]
    fn rules_for_first_packets_and_logs_are_not() {
        let rules = "-A INPUT -p tcp -m limit --limit 3/sec -j ACCEPT\n\
                     -A ufw-logging-deny -m limit --limit 3/min --limit-burst 10 -j LOG --log-prefix \"[UFW BLOCK] \"\n\
                     -A FORWARD -m conntrack --ctstate NEW -m limit --limit 10/sec -j ACCEPT\n\
                     -A KUBE-SVC-X -m statistic --mode random --probability 0.5 -j KUBE-SEP-Y\n\
                     -A cali-FORWARD -j MARK --set-xmark 0x0/0xe0000\n\
                     ct state new limit rate 5/second accept\n\
                     table ip6 six {\n  chain x {\n    limit rate 5/second drop\n  }\n}\n";
        assert_eq!(find("iptables-save", rules), []);
        // One that is for others as well, and one that is for all others.
        for rule in [
            "-A FORWARD -m conntrack ! --ctstate NEW -j DSCP --set-dscp 0x0a",
            "-A FORWARD -m conntrack --ctstate NEW,ESTABLISHED -j TTL --ttl-set 3",
            "table inet filter {\n  chain x {\n    ip dscp set cs1\n  }\n}",
        ] {
            assert_eq!(find("iptables-save", rule).len(), 1, "{rule}");
        }
    }
}
