use proptest::prelude::*;

use super::*;

fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

#[test]
fn the_better_source_holds_and_the_next_comes_back() {
    let mut rib = Rib::new();
    let block = net("172.19.35.0/26");
    assert!(rib.set(Source::Kernel, block, 1));
    assert!(rib.set(Source::Config, block, 2));
    assert!(!rib.set(Source::Bgp, block, 3), "the file's offer still holds");
    assert_eq!(rib.best(block), Some((Source::Config, &2)));
    assert_eq!(
        rib.offers(block).collect::<Vec<_>>(),
        [(Source::Config, &2), (Source::Bgp, &3), (Source::Kernel, &1)]
    );
    assert_eq!(rib.len(), 1);
    assert!(!rib.withdraw(Source::Kernel, block));
    assert!(rib.withdraw(Source::Config, block));
    assert_eq!(rib.best(block), Some((Source::Bgp, &3)));
    assert!(rib.withdraw(Source::Bgp, block));
    assert!(!rib.withdraw(Source::Bgp, block), "there was nothing to take back");
    assert!(rib.is_empty());
}

#[test]
fn the_same_wish_again_changes_nothing() {
    let mut rib = Rib::new();
    let block = net("172.19.35.0/26");
    assert!(rib.set(Source::Bgp, block, 1));
    assert!(!rib.set(Source::Bgp, block, 1));
    assert!(rib.set(Source::Bgp, block, 2));
    assert!(rib.set(Source::Config, block, 2), "the wish is the same, but another source's");
}

#[test]
fn replacing_tells_only_what_changed() {
    let mut rib = Rib::new();
    for (prefix, offer) in [("10.0.0.0/8", 1), ("10.1.0.0/16", 2), ("10.2.0.0/16", 3)] {
        rib.set(Source::Bgp, net(prefix), offer);
    }
    rib.set(Source::Config, net("10.3.0.0/16"), 9);
    let wanted = [("10.0.0.0/8", 1), ("10.1.0.0/16", 7), ("10.3.0.0/16", 5), ("10.4.5.6/16", 4)];
    let changed = rib.replace(Source::Bgp, wanted.map(|(prefix, offer)| (net(prefix), offer)).into());
    assert_eq!(changed, ["10.1.0.0/16", "10.2.0.0/16", "10.4.0.0/16"].map(net).into());
    assert_eq!(rib.best(net("10.4.0.0/16")), Some((Source::Bgp, &4)), "host bits do not count");
    assert_eq!(rib.best(net("10.3.0.0/16")), Some((Source::Config, &9)));
    assert_eq!(rib.len(), 4);
}

#[test]
fn the_longest_match_wins_over_the_better_source() {
    let mut rib = Rib::new();
    rib.set(Source::Config, net("0.0.0.0/0"), 0);
    rib.set(Source::Kernel, net("172.19.35.0/24"), 24);
    rib.set(Source::Bgp, net("172.19.35.128/26"), 26);
    let at = |address: &str| rib.longest_match(address.parse().unwrap()).map(|(_, _, offer)| *offer);
    assert_eq!(at("172.19.35.130"), Some(26));
    assert_eq!(at("172.19.35.127"), Some(24));
    assert_eq!(at("192.0.2.1"), Some(0));
    assert_eq!(Rib::<u8>::new().longest_match(Ipv4Addr::LOCALHOST), None);
}

#[test]
fn sources_are_named_in_json() {
    assert_eq!(
        serde_json::to_string(&Source::ALL).unwrap(),
        r#"["kernel","config","kernel","bgp","kernel"]"#
    );
}

#[derive(Clone, Debug)]
enum Step {
    Set(Source, Ipv4Net, u8),
    Withdraw(Source, Ipv4Net),
    Replace(Source, BTreeMap<Ipv4Net, u8>),
}

fn prefixes() -> impl Strategy<Value = Ipv4Net> {
    // Few of them, so that sources and steps meet.
    (0_u8..4, 22_u8..26)
        .prop_map(|(third, length)| Ipv4Net::new_assert(Ipv4Addr::new(10, 0, third, 0), length).trunc())
}

fn steps() -> impl Strategy<Value = Step> {
    let sources = prop::sample::select(Source::ALL.to_vec());
    prop_oneof![
        (sources.clone(), prefixes(), 0_u8..3).prop_map(|(source, prefix, t)| Step::Set(source, prefix, t)),
        (sources.clone(), prefixes()).prop_map(|(source, prefix)| Step::Withdraw(source, prefix)),
        (sources, prop::collection::btree_map(prefixes(), 0_u8..3, 0..6))
            .prop_map(|(source, wanted)| Step::Replace(source, wanted)),
    ]
}

type Model = BTreeMap<(Ipv4Net, Source), u8>;

/// The model's best offers, by prefix: what `Rib::iter` should give.
fn best(model: &Model) -> BTreeMap<Ipv4Net, (Source, u8)> {
    // Reversed, so that of one prefix's offers the best is written last.
    model.iter().rev().map(|(&(prefix, source), &offer)| (prefix, (source, offer))).collect()
}

proptest! {
    #[test]
    fn agrees_with_a_list_of_offers(steps in prop::collection::vec(steps(), 1..40)) {
        let mut rib = Rib::new();
        let mut model = Model::new();
        for step in steps {
            let before = best(&model);
            let told = match step {
                Step::Set(source, prefix, offer) => {
                    model.insert((prefix, source), offer);
                    rib.set(source, prefix, offer).then_some(prefix).into_iter().collect()
                }
                Step::Withdraw(source, prefix) => {
                    model.remove(&(prefix, source));
                    rib.withdraw(source, prefix).then_some(prefix).into_iter().collect()
                }
                Step::Replace(source, wanted) => {
                    model.retain(|(_, other), _| *other != source);
                    model.extend(wanted.iter().map(|(&prefix, &offer)| ((prefix, source), offer)));
                    rib.replace(source, wanted)
                }
            };
            let after = best(&model);
            let touched: BTreeSet<_> = before.keys().chain(after.keys()).copied().collect();
            let changed: BTreeSet<_> =
                touched.into_iter().filter(|prefix| before.get(prefix) != after.get(prefix)).collect();
            prop_assert_eq!(told, changed);
            prop_assert_eq!(rib.len(), after.len());
            let listed: Vec<_> = rib.iter().map(|(prefix, source, offer)| (prefix, (source, *offer))).collect();
            prop_assert_eq!(listed, after.into_iter().collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_container_of_this_node_goes_before_what_another_node_announces() {
    let (mut rib, address) = (Rib::new(), net("172.19.35.9/32"));
    assert!(rib.set(Source::Bgp, address, 1));
    assert!(rib.set(Source::Workload, address, 2));
    assert_eq!(rib.best(address), Some((Source::Workload, &2)));
    assert!(rib.withdraw(Source::Workload, address));
    assert_eq!(rib.best(address), Some((Source::Bgp, &1)));
}
