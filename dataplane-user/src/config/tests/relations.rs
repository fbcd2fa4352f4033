//! Faults between sections.

use super::{Machine, assert_found, assert_refused, unmarked};
use crate::config::parse;

#[test]
fn pools_and_blocks() {
    assert_refused(&[
        (
            "[[pool]]\ncidr = \"172.19.0.0/16\"\n[[pool]]\ncidr = ¦\"172.16.0.0/12\"\n",
            &["pool 172.16.0.0/12 overlaps pool 172.19.0.0/16 of line 2; remove one"],
        ),
        (
            "[[pool]]\ncidr = \"172.19.0.0/16\"\n[[pool]]\ncidr = ¦\"172.19.0.0/16\"\n",
            &["pool 172.19.0.0/16 is given in line 2 already"],
        ),
        (
            "[[block]]\ncidr = \"172.19.35.0/24\"\n[[block]]\ncidr = ¦\"172.19.35.64/26\"\n[[block]]\n\
             cidr = ¦\"172.19.35.0/24\"\n",
            &[
                "block 172.19.35.64/26 overlaps block 172.19.35.0/24 of line 2",
                "is given in line 2 \
            already",
            ],
        ),
        (
            "[[pool]]\ncidr = \"172.19.0.0/16\"\n[[block]]\ncidr = ¦\"172.20.0.0/24\"\n[[block]]\n\
             cidr = ¦\"172.18.0.0/15\"\n",
            &["lies outside every pool; correct it, or add", "is larger than pool 172.19.0.0/16 of line 2"],
        ),
        // The pool that cannot be read may be the one that is missed.
        (
            "[[pool]]\ncidr = ¦\"172.19.0.0\"\n[[pool]]\ncidr = \"10.0.0.0/8\"\n[[block]]\n\
             cidr = \"172.19.35.0/24\"\n",
            &["/32"],
        ),
    ]);
}

#[test]
fn endpoints() {
    assert_refused(&[
        (
            "[[block]]\ncidr = \"172.19.35.0/24\"\n[[endpoint]]\naddress = ¦\"172.19.36.2\"\n\
             interface = \"cali1\"\n",
            &["endpoint 172.19.36.2 lies outside every block; correct it, or add"],
        ),
        ("[[endpoint]]\naddress = ¦\"172.19.36.2\"\ninterface = \"cali1\"\n", &["outside every block"]),
        (
            "[[block]]\ncidr = ¦\"172.19.35.0\"\n[[endpoint]]\naddress = \"172.19.36.2\"\n\
             interface = \"cali1\"\n",
            &["/32"],
        ),
        (
            "[[block]]\ncidr = \"172.19.35.0/24\"\n[[endpoint]]\naddress = \"172.19.35.2\"\ninterface = \"cali1\"\n\
             [[endpoint]]\naddress = ¦\"172.19.35.2\"\ninterface = \"cali2\"\n",
            &["endpoint 172.19.35.2 is given in line 4 already"],
        ),
        (
            "[node]\nuplinks = [\"eth0\"]\n[[block]]\ncidr = \"172.19.35.0/24\"\n[[endpoint]]\n\
             address = \"172.19.35.2\"\ninterface = ¦\"eth0\"\n",
            &["`eth0` is an uplink, by line 2"],
        ),
        (
            "[datapath]\nmax-endpoints = 1\n[[block]]\ncidr = \"172.19.35.0/24\"\n[[endpoint]]\naddress = \"172.19.35.2\"\n\
             interface = \"cali1\"\n¦[[endpoint]]\naddress = \"172.19.35.3\"\ninterface = \"cali1\"\n",
            &["more of these than `max-endpoints` of [datapath], 1, has room for; write `max-endpoints = \
            2`"],
        ),
    ]);
}

#[test]
fn routes() {
    assert_refused(&[
        (
            "[[route]]\nto = \"172.19.36.0/24\"\nvia = \"10.141.0.2\"\n[[route]]\n\
             to = ¦\"172.19.36.0/24\"\nvia = \"10.141.0.3\"\n",
            &["a route to 172.19.36.0/24 is given in line 2 already"],
        ),
        (
            "[[block]]\ncidr = \"172.19.35.0/24\"\n[[route]]\nto = ¦\"172.19.35.128/25\"\nvia = \"10.141.0.2\"\n\
             [[route]]\nto = ¦\"172.19.34.0/23\"\nvia = \"10.141.0.2\"\n",
            &[
                "overlaps block 172.19.35.0/24 of line 2, this node's own",
                "overlaps block 172.19.35.0/24 of line 2",
            ],
        ),
        (
            "[[block]]\ncidr = \"172.19.35.0/24\"\n[[route]]\nto = \"172.19.36.0/24\"\n\
             via = ¦\"172.19.35.9\"\n",
            &["next hop 172.19.35.9 lies inside block 172.19.35.0/24 of line 2"],
        ),
        (
            "[[route]]\nto = \"172.19.36.0/24\"\nvia = ¦\"172.19.36.1\"\n",
            &["next hop 172.19.36.1 lies inside 172.19.36.0/24, which it is to lead to"],
        ),
        (
            "[datapath]\nmax-routes = 1\n[[route]]\nto = \"172.19.36.0/24\"\nvia = \"10.141.0.2\"\n\
             ¦[[route]]\nto = \"172.19.37.0/24\"\nvia = \"10.141.0.2\"\n",
            &["more of these than `max-routes`"],
        ),
        // The daemon would not become ready: the first prefixes that every node has fill the table.
        ("[datapath]\nmax-routes = ¦1\n", &["1 routes are fewer than this file needs"]),
        (
            "[datapath]\nmax-routes = ¦9\n[[block]]\ncidr = \"172.19.35.0/24\"\n[[route]]\nto = \"172.19.36.0/24\"\n\
             via = \"10.141.0.2\"\n",
            &["`max-routes = 10` or more"],
        ),
    ]);
}

#[test]
fn uplinks() {
    assert_refused(&[
        (
            "[node]\nuplinks = [\"eth0\", ¦\"cali7\"]\n",
            &["uplink `cali7` begins with the workload prefix `cali`"],
        ),
        (
            "[node]\nworkload-prefix = \"e\"\nuplinks = [¦\"eth0\"]\n",
            &["begins with the workload prefix `e`"],
        ),
    ]);
}

#[test]
fn bgp() {
    const BGP: &str = "[bgp]\nasn = 1\nrouter-id = \"1.1.1.1\"\n";
    let cases: [(&str, &[&str]); 4] = [
        (
            "[[bgp.peer]]\naddress = \"10.141.0.2\"\nasn = 1\n[[bgp.peer]]\naddress = ¦\"10.141.0.2\"\n\
             asn = 2\n",
            &["peer 10.141.0.2 port 179 is given in line 4 already"],
        ),
        ("[[bgp.peer]]\naddress = \"10.141.0.2\"\nasn = 1\npassive = ¦true\n", &["[bgp] has no `listen`"]),
        (
            "[[bgp.peer]]\naddress = \"10.141.0.2\"\nasn = 1\npassword-file = ¦\"/not-there\"\n",
            &["the password file is not there; write the password that the peer has into it"],
        ),
        (
            "listen = \"10.141.0.1:1179\"\n[[bgp.peer]]\naddress = ¦\"10.141.0.1\"\nasn = 1\n\
             port = 1179\npassive = true\n",
            &["is this node itself"],
        ),
    ];
    for (marked, expected) in cases {
        let marked = format!("{BGP}{marked}");
        let failure = super::refused(&unmarked(&marked).0);
        let places: Vec<_> = failure.errors.iter().map(|error| (error.line, error.column)).collect();
        assert_eq!(places, unmarked(&marked).1, "{failure}");
        assert!(failure.errors[0].to_string().contains(expected[0]), "{failure}");
    }
}

#[test]
fn rules_of_translation() {
    assert_refused(&[(
        "[[masquerade]]\nsource = \"172.19.0.0/16\"\n[[masquerade]]\nsource = ¦\"172.19.0.0/16\"\n",
        &["packets from 172.19.0.0/16 by the same interface are translated in line 1 already"],
    )]);
    assert_refused(&[(
        "[datapath]\negress = \"kernel\"\n¦[[masquerade]]\nsource = \"172.19.0.0/16\"\n",
        &["leaves to the kernel what is to be translated"],
    )]);
    let networks: Vec<_> = (0..65).map(|number| format!("\"10.{number}.0.0/16\"")).collect();
    let text = |mark: &str| {
        let (most, last) = networks.split_at(64);
        format!(
            "[[masquerade]]\nsource = \"172.19.0.0/16\"\nexclude = [{}, {mark}{}]\n",
            most.join(", "),
            last[0]
        )
    };
    let failure = super::refused(&text(""));
    assert_found(&(text("¦").leak(), &["more than 64 networks"]), &failure.errors);
    let pools: String = (0..65).map(|number| format!("[[pool]]\ncidr = \"10.{number}.0.0/16\"\n")).collect();
    let text = format!("{pools}¦[[masquerade]]\nsource = \"10.0.0.0/16\"\n");
    let failure = super::refused(&unmarked(&text).0);
    assert_found(&(text.leak(), &["more than 64 pools"]), &failure.errors);
}

#[test]
fn what_the_kernel_cannot_decide_as_well() {
    const RESPECT: &str = "[datapath]\nnetfilter = \"respect\"\n";
    let cases: [(&str, &[&str]); 4] = [
        (
            "¦[[masquerade]]\nsource = \"172.19.0.0/16\"\nexclude = []\n",
            &[
                "a [[masquerade]] translates in BPF, but by line 2 the kernel decides (`netfilter = \"respect\"`); remove the rule",
            ],
        ),
        ("uplink-hook = ¦\"xdp\"\n", &["before the kernel's connections can be told"]),
        ("egress = ¦\"kernel\"\n", &["leaves every packet to the outside to it"]),
        (
            "skip-mark = ¦\"0x3/0x1\"\n",
            &["matches no mark: the value has bits that the mask leaves out; write \"0x3/0x3\""],
        ),
    ];
    for (marked, expected) in cases {
        assert_refused(&[(format!("{RESPECT}{marked}").leak() as &str, expected)]);
    }
    assert_refused(&[(
        "[datapath]\nskip-mark = ¦\"ten\"\n",
        &["`ten` is no mark with a mask; write for example \"0x10000/0x10000\""],
    )]);
}

#[test]
fn addresses_that_have_no_effect_are_noticed() {
    let machine = Machine::quiet();
    let case = (
        "[[masquerade]]\nsource = \"172.19.0.0/16\"\naddress = ¦\"192.0.2.7\"\n\
         exclude = [\"172.19.0.0/16\", ¦\"127.0.0.0/8\"]\nports = \"50000-60000\"\n",
        &["192.0.2.7 is no address of this node", "excluding it has no effect"][..],
    );
    let loaded = parse("node.toml", &unmarked(case.0).0, &machine).unwrap();
    assert_found(&case, &loaded.warnings);
}

#[test]
fn ports_that_the_host_uses() {
    const RULE: &str = "[[masquerade]]\nsource = \"172.19.0.0/16\"\nexclude = []\nports = ¦\"49152-65535\"\n";
    let leave = format!("[datapath]\nhost-ports = \"leave\"\n{RULE}");
    let text = unmarked(&leave).0;
    let refused = |machine: &Machine| parse("node.toml", &text, machine).unwrap_err();
    let mut machine = Machine { ephemeral: Some(32768..=60999), ..Machine::quiet() };

    let overlap = (
        leave.clone().leak() as &str,
        &[
            "the ports 49152-65535 overlap 32768-60999, from which the host takes those of its own connections; \
           write `host-ports = \"reserve\"` into [datapath], remove the line, or reserve them with \
           `sysctl -w net.ipv4.ip_local_reserved_ports=49152-60999`",
        ][..],
    );
    assert_found(&overlap, &refused(&machine).errors);
    machine.reserved = "50000-60999";
    assert_found(&overlap, &refused(&machine).errors);

    // Reserved, if in two pieces and out of order: it is taken.
    machine.reserved = "55000-61000,8080,49000-54999";
    let ports = |machine: &Machine, text: &str| {
        parse("node.toml", text, machine).unwrap().config.masquerade[0].ports.clone()
    };
    assert_eq!(ports(&machine, &text), Some(49152..=65535));
    machine.ephemeral = None;
    assert_eq!(ports(&machine, &text), Some(49152..=65535));

    // By default they are reserved, but for what the host needs.
    let reserve = unmarked(RULE).0;
    let warnings = |machine: &Machine| parse("node.toml", &reserve, machine).unwrap().warnings;
    machine = Machine { ephemeral: Some(32768..=60999), ..Machine::quiet() };
    assert!(warnings(&machine).is_empty());
    machine.ephemeral = Some(49152..=65535);
    assert_found(&(RULE, &["of which it keeps 8192: not all of these are used"]), &warnings(&machine));

    // Where no ports are given, none of the host's are meant.
    let default = "[datapath]\nhost-ports = \"leave\"\n[[masquerade]]\nsource = \"172.19.0.0/16\"\n";
    assert_eq!(ports(&machine, default), None);
}
