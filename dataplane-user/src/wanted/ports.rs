//! Which ports MASQUERADE has, and which of the host's ephemeral ports are reserved for that. Pure functions of the rules,
//! of the host's settings and of its sockets.

use std::{
    collections::BTreeMap,
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use dataplane_common::ports::{PORT_ROWS, PORT_WORDS};

use crate::{
    config::{DEFAULT_PORTS, HOST_PORTS},
    port_set::PortSet,
};

/// What the host is set to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// `net.ipv4.ip_local_port_range`: from these it takes the ports of its own connections...
    pub ephemeral: RangeInclusive<u16>,
    /// ...but for these, which others than this daemon put into `net.ipv4.ip_local_reserved_ports`.
    pub reserved: PortSet,
}

/// Who has which ports. No port that MASQUERADE has is one that the host may give to a connection of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// MASQUERADE's, but for those at which a socket of the host is bound.
    pub usable: PortSet,
    /// To be reserved, besides what others have reserved.
    pub reserve: PortSet,
    /// Given in the file, and yet not MASQUERADE's: the host may take them.
    pub left_out: PortSet,
    /// How many ephemeral ports the host has then.
    pub kept: usize,
}

/// The ports for rules with these `ports`, `None` where the file gives none. Without `reserve`, nothing is taken from the
/// host's ephemeral ports.
///
/// What others have reserved may be meant for a service that is still to start: rules have such ports where they are
/// given, and not by default.
pub fn plan(host: &Host, rules: &[Option<RangeInclusive<u16>>], reserve: bool) -> Plan {
    let mut given = PortSet::new();
    rules.iter().flatten().for_each(|range| given.insert_all(range.clone()));
    let by_default = match rules.iter().any(Option::is_none) {
        true => &PortSet::from(DEFAULT_PORTS) - &host.reserved,
        false => PortSet::new(),
    };
    let wanted = &given | &by_default;
    let ephemeral = &PortSet::from(host.ephemeral.clone()) - &host.reserved;
    let common = &ephemeral & &wanted;
    let reserve = if reserve { &common - &keep(&ephemeral, &common, &given) } else { PortSet::new() };
    let host_s = &ephemeral - &reserve;
    Plan { usable: &wanted - &host_s, left_out: &given & &host_s, kept: host_s.len(), reserve }
}

/// Those of the ports in common that the host keeps, the lowest first, and such as a rule gives last.
fn keep(ephemeral: &PortSet, common: &PortSet, given: &PortSet) -> PortSet {
    let missing = HOST_PORTS.saturating_sub((ephemeral - common).len());
    let (by_default, given) = (common - given, common & given);
    by_default.iter().chain(given.iter()).take(missing).collect()
}

/// The words of the map of ports: what is usable, but for the ports of bound sockets by row.
pub fn words(usable: &PortSet, bound: &[PortSet; PORT_ROWS as usize]) -> Vec<u64> {
    let mut words = Vec::with_capacity(PORT_WORDS as usize);
    for bound in bound {
        words.extend_from_slice((usable - bound).words());
    }
    words
}

/// Ports of sockets, with when each was last seen.
#[derive(Clone, Debug, Default)]
pub struct Recent(BTreeMap<u16, Instant>);

impl Recent {
    /// Takes in what is seen now, and forgets what was not seen for so long.
    pub fn note(&mut self, ports: impl Iterator<Item = u16>, now: Instant, hold: Duration) {
        self.0.extend(ports.map(|port| (port, now)));
        self.0.retain(|_, seen| now.duration_since(*seen) < hold);
    }

    /// The ports.
    pub fn ports(&self) -> PortSet {
        self.0.keys().copied().collect()
    }
}

/// What is wrong where the host's reserved ports cannot be changed, with the fix. The plan is the one without.
pub fn unwritable(error: &anyhow::Error, plan: &Plan, host: &Host, reserves: bool) -> String {
    if !reserves {
        return format!(
            "masquerade: {error:#}: ports of the host stay reserved; make /proc/sys writable for the daemon"
        );
    }
    format!(
        "masquerade: {error:#}: only the {} ports outside of net.ipv4.ip_local_port_range ({}-{}) are used; make /proc/sys \
         writable for the daemon, or write `host-ports = \"leave\"` into [datapath] if that is meant",
        plan.usable.len(),
        host.ephemeral.start(),
        host.ephemeral.end()
    )
}

impl Plan {
    /// What is wrong with it, each with the fix.
    pub fn complaints(&self, host: &Host, reserves: bool) -> Vec<String> {
        let mut complaints = Vec::new();
        if self.kept < HOST_PORTS && reserves {
            complaints.push(format!(
                "masquerade: net.ipv4.ip_local_port_range ({}-{}) and net.ipv4.ip_local_reserved_ports leave the host {} \
                 ephemeral ports, and none of them is taken while they are fewer than {HOST_PORTS}: set a larger range, \
                 reserve less, or write `host-ports = \"leave\"` into [datapath] if that is meant",
                host.ephemeral.start(),
                host.ephemeral.end(),
                self.kept
            ));
        }
        if !self.left_out.is_empty() {
            complaints.push(format!(
                "masquerade: the ports {} are in `ports`, but the host may give them to connections of its own: they are not \
                 used; choose other `ports`",
                self.left_out
            ));
        }
        if self.usable.is_empty() {
            complaints.push(
                "masquerade: no port is left that the host does not use: new TCP and UDP flows are dropped (nat-no-port); \
                 make net.ipv4.ip_local_port_range smaller, or set `ports`"
                    .to_owned(),
            );
        }
        complaints
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn host(ephemeral: RangeInclusive<u16>, reserved: &str) -> Host {
        Host { ephemeral, reserved: PortSet::parse(reserved).unwrap() }
    }

    fn ports(text: &str) -> PortSet {
        PortSet::parse(text).unwrap()
    }

    #[test]
    fn the_host_keeps_a_part_of_its_range() {
        let stock = host(32768..=60999, "");
        let plan = plan(&stock, &[None], true);
        assert_eq!(plan.usable, ports("16384-32767,40960-65535"));
        assert_eq!((&plan.reserve, plan.kept), (&ports("40960-60999"), 8192));
        assert_eq!(plan.complaints(&stock, true), Vec::<String>::new());
    }

    #[test]
    fn or_all_of_it() {
        let stock = host(32768..=60999, "");
        let plan = plan(&stock, &[None], false);
        assert_eq!(plan.usable, ports("16384-32767,61000-65535"));
        assert!(plan.reserve.is_empty());
        assert_eq!(plan.complaints(&stock, false), Vec::<String>::new());
        let said = unwritable(&anyhow::anyhow!("cannot write it"), &plan, &stock, true);
        assert!(said.contains("cannot write it: only the 20920 ports outside"), "{said}");
    }

    #[test]
    fn what_others_reserve_is_used_only_where_it_is_given() {
        let with_services = host(32768..=60999, "30000-32767,50000-50099");
        let by_default = plan(&with_services, &[None], true);
        assert_eq!(by_default.usable, ports("16384-29999,40960-49999,50100-65535"));
        assert_eq!(by_default.reserve, ports("40960-49999,50100-60999"));
        let given = plan(&with_services, &[Some(50000..=50099)], false);
        assert_eq!((given.usable, given.left_out.len()), (ports("50000-50099"), 0));
    }

    #[test]
    fn the_host_keeps_given_ports_last() {
        let stock = host(32768..=60999, "");
        let both = plan(&stock, &[None, Some(32768..=33000)], true);
        assert!(both.left_out.is_empty() && ports("32768-33000").is_subset(&both.usable));
        assert_eq!(both.kept, 8192);

        let all = plan(&stock, &[Some(1024..=65535)], true);
        assert_eq!(all.left_out, ports("32768-40959"));
        assert!(all.complaints(&stock, true)[0].contains("the ports 32768-40959 are in `ports`"));
    }

    #[test]
    fn a_small_range_is_left_alone() {
        let small = host(60000..=60999, "");
        let plan = plan(&small, &[None], true);
        assert!(plan.reserve.is_empty());
        assert_eq!((plan.kept, plan.usable), (1000, ports("16384-59999,61000-65535")));
    }

    #[test]
    fn nothing_left_is_said() {
        let wide = host(1024..=65535, "");
        let plan = plan(&wide, &[None], false);
        assert!(plan.complaints(&wide, false)[0].contains("no port is left"));
    }

    #[test]
    fn ports_of_sockets_are_left_out_of_their_row() {
        let words = words(&ports("16384-65535"), &[ports("20000"), ports("30000-30001")]);
        use dataplane_common::ports::{ROW_TCP, ROW_UDP, bit, word};
        let is_set = |row, port| words[word(row, port) as usize] & bit(port) != 0;
        assert_eq!(words.len(), PORT_WORDS as usize);
        assert!(!is_set(ROW_TCP, 20000) && is_set(ROW_UDP, 20000));
        assert!(is_set(ROW_TCP, 30000) && !is_set(ROW_UDP, 30000) && !is_set(ROW_UDP, 30001));
        assert!(is_set(ROW_UDP, 65535) && !is_set(ROW_TCP, 16383));
    }

    #[test]
    fn a_port_is_held_for_a_while_after_its_socket() {
        let (mut recent, start) = (Recent::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let hold = Duration::from_secs(60);
        recent.note([1, 2].into_iter(), at(0), hold);
        recent.note([2].into_iter(), at(59), hold);
        assert_eq!(recent.ports(), ports("1-2"));
        recent.note([].into_iter(), at(60), hold);
        assert_eq!(recent.ports(), ports("2"));
        recent.note([].into_iter(), at(119), hold);
        assert!(recent.ports().is_empty());
    }

    fn range() -> impl Strategy<Value = RangeInclusive<u16>> {
        (1..=u16::MAX, 1..=u16::MAX).prop_map(|(a, b)| a.min(b)..=a.max(b))
    }

    proptest! {
        #[test]
        fn no_port_is_both_the_host_s_and_masquerade_s(
            ephemeral in range(),
            reserved in prop::collection::vec(range().prop_map(PortSet::from), 0..3),
            rules in prop::collection::vec(prop::option::of(range()), 1..4),
            reserve in any::<bool>(),
        ) {
            let reserved = reserved.iter().fold(PortSet::new(), |all, some| &all | some);
            let host = Host { ephemeral: ephemeral.clone(), reserved };
            let plan = plan(&host, &rules, reserve);

            let before = &PortSet::from(ephemeral) - &host.reserved;
            let after = &before - &plan.reserve;
            prop_assert!((&after & &plan.usable).is_empty());
            prop_assert_eq!(plan.kept, after.len());
            prop_assert!(after.len() >= before.len().min(HOST_PORTS));
            // Reserved is what is used of the host's range, and nothing twice.
            prop_assert_eq!(&plan.reserve, &(&before & &plan.usable));
            prop_assert!(reserve || plan.reserve.is_empty());
            // Given ports are used, or said to be left out.
            let given = rules.iter().flatten().fold(PortSet::new(), |all, some| &all | &some.clone().into());
            prop_assert!(given.is_subset(&(&plan.usable | &plan.left_out)));
            prop_assert!((&plan.usable & &plan.left_out).is_empty());
            if rules.iter().any(Option::is_none) {
                let left = &(&PortSet::from(DEFAULT_PORTS) - &host.reserved) - &plan.usable;
                prop_assert!(left.is_subset(&after));
            }
        }
    }
}
