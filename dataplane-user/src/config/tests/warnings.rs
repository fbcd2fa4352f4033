//! What is allowed, and worth a word.

use super::{Machine, accepted, assert_found, read, unmarked};
use crate::config::parse;

#[test]
fn interfaces_that_are_not_there() {
    let machine = Machine { interfaces: Some(&["eth0", "cali1"]), ..Machine::quiet() };
    let case = (
        "[node]\nuplinks = [\"eth0\", ¦\"eth7\"]\n[[block]]\ncidr = \"172.19.35.0/24\"\n\
         [[endpoint]]\naddress = \"172.19.35.2\"\ninterface = \"cali1\"\n\
         [[endpoint]]\naddress = \"172.19.35.3\"\ninterface = ¦\"cali2\"\n",
        &["there is no interface `eth7`; correct the name, or create it", "no interface `cali2`"][..],
    );
    let loaded = parse("node.toml", &unmarked(case.0).0, &machine).unwrap();
    assert_found(&case, &loaded.warnings);
    assert_eq!(loaded.config.endpoints.len(), 2);

    let case = (
        "[[pool]]\ncidr = \"172.19.0.0/16\"\n[[masquerade]]\nsource = \"172.19.0.0/16\"\ninterface = ¦\"eth1\"\n",
        &["there is no interface `eth1`"][..],
    );
    let loaded = parse("node.toml", &unmarked(case.0).0, &machine).unwrap();
    assert_found(&case, &loaded.warnings);
}

#[test]
fn translation_of_everything() {
    let case = (
        "¦[[masquerade]]\nsource = \"172.19.0.0/16\"\n",
        &["packets to other nodes' containers are translated as well"][..],
    );
    assert_found(&case, &accepted(&unmarked(case.0).0).warnings);
}

#[test]
fn translation_where_no_program_is() {
    let case = (
        "[node]\nuplinks = [\"eth0\"]\n[[masquerade]]\nsource = \"172.19.0.0/16\"\nexclude = []\ninterface = ¦\"eth1\"\n",
        &["interface `eth1` is not among the uplinks; add it to `uplinks` of [node]"][..],
    );
    assert_found(&case, &accepted(&unmarked(case.0).0).warnings);
}

#[test]
fn keys_without_effect() {
    let case = (
        "[datapath]\nmax-flows = ¦1000\nmax-flows-per-source = ¦10\n[timeouts]\nudp-replied-seconds = ¦60\n",
        &[
            "`max-flows` has no effect without a [[masquerade]]",
            "`max-flows-per-source` has no effect",
            "[timeouts] has no effect",
        ][..],
    );
    let loaded = accepted(&unmarked(case.0).0);
    assert_found(&case, &loaded.warnings);
    assert_eq!(loaded.config.datapath.max_flows, 1000);

    let case = (
        "[datapath]\nskip-mark = ¦\"0x10000/0x10000\"\nskip = ¦[\"192.0.2.0/24\"]\n",
        &[
            "`skip-mark` has no effect without `netfilter = \"respect\"`",
            "`skip` has no effect without `netfilter = \"respect\"`",
        ][..],
    );
    assert_found(&case, &accepted(&unmarked(case.0).0).warnings);
    // With it they have, and so have the sizes of the table.
    let respect = "[datapath]\nnetfilter = \"respect\"\nskip-mark = \"0x10000/0x30000\"\nskip = [\"192.0.2.0/24\"]\nmax-flows = 1000\n";
    let loaded = accepted(respect);
    assert_eq!(loaded.warnings, []);
    let mark = loaded.config.datapath.skip_mark.unwrap();
    assert!(mark.matches(0x9_0000) && !mark.matches(0x3_0000));
    assert_ne!(loaded.config.limits().buckets, 0);

    let case = (
        "[kernel]\nimport = false\ntable = ¦100\nprotocols = ¦[\"bird\"]\n",
        &["`table` has no effect while `import` is not true", "`protocols` has no effect"][..],
    );
    assert_found(&case, &accepted(&unmarked(case.0).0).warnings);
}

#[test]
fn warnings_come_with_errors_too() {
    let failure = read("[datapath]\nmax-flows = 1000\n[log]\nlevel = \"loud\"\n").unwrap_err();
    assert_eq!((failure.errors.len(), failure.warnings.len()), (1, 1));
}

#[test]
fn bgp_that_accepts_nothing() {
    let case = ("¦[bgp]\nasn = 1\nrouter-id = \"1.1.1.1\"\n", &["[bgp] would refuse every prefix"][..]);
    assert_found(&case, &accepted(&unmarked(case.0).0).warnings);
}

#[test]
fn bgp_peers_that_may_be_confused_or_whose_password_is_open() {
    let bgp = "[bgp]\nasn = 1\nrouter-id = \"1.1.1.1\"\nlisten = \"192.168.200.172:179\"\naccept = [\"172.19.0.0/16\"]\n";
    let peers = "[[bgp.peer]]\naddress = \"10.141.0.2\"\nasn = 1\npassword-file = ¦\"/exposed\"\n\
                 [[bgp.peer]]\naddress = ¦\"10.141.0.2\"\nasn = 1\nport = 1179\npassive = true\n";
    let text: &'static str = format!("{bgp}{peers}").leak();
    let case =
        (text, &["every user can open the password file; chmod o-rw /exposed", "the one in line 6"][..]);
    assert_found(&case, &accepted(&unmarked(case.0).0).warnings);
}
