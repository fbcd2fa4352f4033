//! The table on arrays: what it promises, alone and among threads.

mod adopt;
mod model;
mod record;
mod threads;

use std::net::Ipv4Addr;

use super::{
    super::{
        bucket::FLOWS_PER_BUCKET,
        flow::ticks,
        settings::{RECORDS_PER_WORD, TIMEOUTS, words_of_records},
        state::{State, flags},
        tuple::protocol,
    },
    *,
};
use crate::repeat::Plainly;

/// A table in memory.
pub(super) struct Arrays {
    refs: [Vec<Refs>; 2],
    flows: Vec<Flow>,
    taken: Vec<Word64>,
    shares: Vec<Word32>,
    gauges: Gauges,
    settings: Settings,
}

impl Memory for Arrays {
    fn refs(&self, direction: Direction, bucket: u32) -> Option<&Refs> {
        self.refs[direction as usize].get(bucket as usize)
    }

    fn flow(&self, slot: u32) -> Option<&Flow> {
        self.flows.get(slot as usize)
    }

    fn taken(&self, word: u32) -> Option<&Word64> {
        self.taken.get(word as usize)
    }

    fn share(&self, index: u32) -> Option<&Word32> {
        self.shares.get(index as usize)
    }

    fn gauges(&self) -> Option<&Gauges> {
        Some(&self.gauges)
    }
}

impl Repeat for Arrays {
    fn repeat(&self, count: u32, body: impl FnMut(u32) -> bool) {
        Plainly.repeat(count, body);
    }
}

fn many<T: Default>(count: u32) -> Vec<T> {
    (0..count).map(|_| T::default()).collect()
}

impl Arrays {
    pub(super) fn new(max_flows: u32) -> Self {
        let buckets = max_flows.div_ceil(FLOWS_PER_BUCKET);
        let mut timeouts = [0; TIMEOUTS];
        for state in State::ALL {
            timeouts[*state as usize] = ticks(state.default_timeout());
        }
        Self {
            refs: [many(buckets), many(buckets)],
            flows: many(words_of_records(max_flows) * RECORDS_PER_WORD),
            taken: many(words_of_records(max_flows)),
            shares: many(SHARES),
            gauges: Gauges::default(),
            settings: Settings {
                seed: 0x1234_5678_9abc_def0,
                buckets,
                max_flows,
                max_flows_per_source: u32::MAX,
                first_rule: 0,
                rules: 0,
                zero: 0,
                timeouts,
            },
        }
    }

    /// Opens a flow that must not be refused.
    fn open(&self, now: u32, tuple: &Tuple, state: State) -> Hit<'_> {
        let outcome = self.at(now).open(tuple, &POOL, state);
        assert_eq!(outcome.refusal(), None, "{outcome:?}");
        self.at(now).hit(outcome.slot()).expect("an open flow")
    }

    pub(super) fn at(&self, now: u32) -> Table<'_, Self> {
        Table { memory: self, settings: &self.settings, now }
    }

    /// Sweeps the whole table.
    fn sweep(&self, now: u32, wanted: impl Fn(&Flow) -> bool) -> Swept {
        let table = self.at(now);
        (0..table.stretches()).map(|stretch| table.sweep(stretch, &wanted)).fold(
            Swept::default(),
            |sum, one| Swept { expired: sum.expired + one.expired, revoked: sum.revoked + one.revoked },
        )
    }

    /// The records that are taken, by their bits.
    fn taken(&self) -> Vec<u32> {
        let bits = self.taken.iter().map(Word64::load).zip((0..).step_by(RECORDS_PER_WORD as usize));
        bits.flat_map(|(word, first)| {
            (0..64).filter(move |bit| word >> bit & 1 != 0).map(move |bit| first + bit)
        })
        .collect()
    }

    /// The records that the index for packets out leads to, in order.
    fn referred(&self) -> Vec<u32> {
        let places =
            self.refs[Direction::Out as usize].iter().flat_map(|refs| (0..REFS).map(|place| refs.get(place)));
        let mut slots: Vec<u32> = places.filter(|place| *place != Ref::NONE).map(Ref::slot).collect();
        slots.sort_unstable();
        slots
    }

    /// What must hold whenever nobody is at work: each flow is found in both directions, under its own tuple,
    /// no two have a tuple in common, each record that is taken is led to by one reference, and the counts are right.
    pub(super) fn check(&self, now: u32) {
        use std::collections::{BTreeMap, HashSet};
        let table = self.at(now);
        let taken = self.taken();
        assert_eq!(taken, self.referred());
        assert_eq!(taken.len(), self.gauges.records.load() as usize);
        let (mut out, mut back) = (HashSet::new(), HashSet::new());
        let mut shares: BTreeMap<Ipv4Addr, u32> = BTreeMap::new();
        let mut counted = 0;
        for (slot, flow) in self.flows.iter().enumerate() {
            let life = Life::from_bits(flow.life.load());
            if life.state() == State::Dead {
                continue;
            }
            counted += 1;
            assert!(taken.contains(&(slot as u32)), "a flow in a free record");
            *shares.entry(flow.original().source.into()).or_default() += 1;
            assert!(out.insert(flow.original()), "{:?} twice", flow.original());
            assert!(back.insert(flow.reply()), "{:?} twice", flow.reply());
            if life.is_alive(now) {
                let hit = table.find_out(&flow.original()).expect("found by its packets");
                assert_eq!(hit.slot as usize, slot);
                let hit = table.search_out(&flow.original()).expect("found by its packets");
                assert_eq!(hit.slot as usize, slot);
                let hit = table.find_in(&flow.reply()).expect("found by its replies");
                assert_eq!(hit.slot as usize, slot);
            }
        }
        assert_eq!(self.gauges.flows.load(), counted);
        let share_of = |source: &Ipv4Addr| table.share((*source).into()).unwrap().load();
        // Sources may have a share in common.
        assert!(shares.iter().all(|(source, count)| share_of(source) >= *count));
        assert_eq!(self.shares.iter().map(Word32::load).sum::<u32>(), counted);
    }
}

pub(super) fn tuple(protocol: u8, source: (u8, u16), destination: (u8, u16)) -> Tuple {
    Tuple {
        protocol,
        source: Ipv4Addr::new(172, 19, 35, source.0).into(),
        source_port: source.1,
        destination: Ipv4Addr::new(192, 0, 2, destination.0).into(),
        destination_port: destination.1,
    }
}

pub(super) const POOL: Pool = Pool { address: Ipv4Be::from_host(0xc633_6401), first: 50_000, count: 1000 };

fn udp(port: u16) -> Tuple {
    tuple(protocol::UDP, (2, port), (1, 53))
}

#[test]
fn a_flow_is_found_in_both_directions_until_it_expires() {
    let arrays = Arrays::new(64);
    let opened = arrays.at(10).open(&udp(1000), &POOL, State::UdpUnreplied);
    assert_eq!((opened.refusal(), opened.probes(), opened.displaced()), (None, 1, Rank::Gone));
    let flow = arrays.at(10).hit(opened.slot()).unwrap().flow;
    assert_eq!(flow.original(), udp(1000));
    assert!((50_000..51_000).contains(&flow.translated_port()));
    assert_eq!(flow.translated_address(), POOL.address);
    let end = 10 + arrays.settings.timeout(State::UdpUnreplied);
    for now in [10, end - 1] {
        assert_eq!(arrays.at(now).find_out(&udp(1000)).unwrap().slot, opened.slot());
        assert_eq!(arrays.at(now).find_in(&flow.reply()).unwrap().slot, opened.slot());
    }
    assert!(arrays.at(end).find_out(&udp(1000)).is_none());
    assert!(arrays.at(end).find_in(&flow.reply()).is_none());
    assert!(arrays.at(10).find_out(&udp(1001)).is_none());
    let mut other = flow.reply();
    other.source_port = 54;
    assert!(arrays.at(10).find_in(&other).is_none(), "only the one that was asked may answer");
    arrays.check(10);
}

#[test]
fn a_packet_renews_its_flow_and_a_swept_one_is_gone() {
    let arrays = Arrays::new(64);
    let hit = arrays.open(0, &udp(1), State::UdpUnreplied);
    let [unreplied, replied] =
        [State::UdpUnreplied, State::UdpReplied].map(|state| arrays.settings.timeout(state));
    assert!(arrays.at(5).renew(&hit, Direction::In, 0));
    let hit = arrays.at(unreplied + 1).find_out(&udp(1)).expect("an answer makes it live longer");
    assert_eq!(arrays.sweep(4 + replied, |_| true).expired, 0);
    assert_eq!(arrays.sweep(5 + replied, |_| true).expired, 1);
    assert!(arrays.taken().is_empty());
    assert!(!arrays.at(5 + replied).renew(&hit, Direction::Out, 0), "no packet brings it back");
    arrays.check(5 + replied);
    assert_eq!(arrays.gauges.flows.load(), 0);
}

#[test]
fn a_socket_has_one_port_towards_everybody_while_it_is_free() {
    let arrays = Arrays::new(1024);
    let ports: Vec<u16> = (1..=100)
        .map(|host| {
            let to = tuple(protocol::UDP, (2, 4000), (host, 53));
            arrays.open(0, &to, State::UdpUnreplied).flow.translated_port()
        })
        .collect();
    assert!(ports.iter().all(|port| *port == ports[0]));
}

#[test]
fn ports_run_out_towards_one_destination_alone() {
    let arrays = Arrays::new(1024);
    let pool = Pool { count: 40, ..POOL };
    let open = |now, tuple: Tuple| arrays.at(now).open(&tuple, &pool, State::UdpUnreplied).refusal();
    for port in 0..40 {
        assert_eq!(open(0, udp(port)), None, "port {port}");
    }
    assert_eq!(open(0, udp(40)), Some(Refusal::Ports));
    arrays.check(0);
    let elsewhere = tuple(protocol::UDP, (2, 40), (2, 53));
    assert_eq!(open(0, elsewhere), None);
    let by_icmp = tuple(protocol::ICMP, (2, 40), (1, 0));
    assert_eq!(open(0, by_icmp), None);
    let later = arrays.settings.timeout(State::UdpUnreplied);
    assert_eq!(open(later, udp(40)), None, "expired flows give their ports back");
    arrays.check(later);
}

#[test]
fn a_closed_connection_gives_its_port_up_and_no_other_does() {
    let arrays = Arrays::new(1024);
    let pool = Pool { count: 20, ..POOL };
    let tcp = |port| tuple(protocol::TCP, (2, port), (1, 80));
    for port in 0..20 {
        let outcome = arrays.at(0).open(&tcp(port), &pool, State::TcpOpening);
        let hit = arrays.at(0).hit(outcome.slot()).expect("there is a port for each");
        if port == 7 {
            assert!(arrays.at(0).renew(&hit, Direction::In, flags::RST));
        }
    }
    let outcome = arrays.at(1).open(&tcp(20), &pool, State::TcpOpening);
    assert_eq!((outcome.refusal(), outcome.displaced()), (None, Rank::Ended));
    assert!(arrays.at(1).find_out(&tcp(7)).is_none());
    arrays.check(1);
    assert_eq!(arrays.at(1).open(&tcp(21), &pool, State::TcpOpening).refusal(), Some(Refusal::Ports));
    arrays.check(1);
}

#[test]
fn who_is_refused_a_port_finds_one_later() {
    let arrays = Arrays::new(4096);
    let open = |now, port| arrays.at(now).open(&udp(port), &POOL, State::UdpReplied).refusal();
    let mut ports = 0..;
    let mut taken = 0;
    while taken < 980 {
        taken += u32::from(open(0, ports.next().unwrap()).is_none());
    }
    let refused = ports.find(|port| open(0, *port).is_some()).unwrap();
    assert_eq!(open(0, refused), Some(Refusal::Ports));
    assert!((1..60).any(|now| open(now, refused).is_none()), "twenty ports are free");
    arrays.check(60);
}

#[test]
fn a_source_has_its_share_and_no_more() {
    let mut arrays = Arrays::new(1024);
    arrays.settings.max_flows_per_source = 10;
    for port in 0..10 {
        arrays.open(0, &udp(port), State::UdpUnreplied);
    }
    assert_eq!(arrays.at(0).open(&udp(10), &POOL, State::UdpUnreplied).refusal(), Some(Refusal::Share));
    let neighbour = tuple(protocol::UDP, (3, 10), (1, 53));
    arrays.open(0, &neighbour, State::UdpUnreplied);
    arrays.check(0);
}

/// A table with established flows only, and no place left.
fn full() -> (Arrays, Vec<Tuple>) {
    let arrays = Arrays::new(64);
    let mut established = Vec::new();
    for port in 0..2000 {
        let tuple = udp(port);
        let outcome = arrays.at(0).open(&tuple, &POOL, State::UdpUnreplied);
        if let Some(refusal) = outcome.refusal() {
            assert_eq!(refusal, Refusal::Full);
            continue;
        }
        let hit = arrays.at(0).hit(outcome.slot()).unwrap();
        assert!(arrays.at(0).renew(&hit, Direction::In, 0));
        established.push(tuple);
    }
    (arrays, established)
}

#[test]
fn a_full_table_refuses_and_keeps_what_it_has() {
    let (arrays, established) = full();
    assert_eq!(established.len(), 64, "as many as it is meant for");
    arrays.check(0);
    for port in 3000..4000 {
        assert_eq!(arrays.at(0).open(&udp(port), &POOL, State::UdpUnreplied).refusal(), Some(Refusal::Full));
    }
    assert!(established.iter().all(|tuple| arrays.at(0).find_out(tuple).is_some()));
    arrays.check(0);
}

#[test]
fn ended_flows_give_way_first_then_half_open_ones() {
    let mut arrays = Arrays::new(FLOWS_PER_BUCKET); // one bucket
    arrays.settings.max_flows = 8;
    let tcp = |port| tuple(protocol::TCP, (2, port), (1, 80));
    for port in 0..8 {
        let hit = arrays.open(u32::from(port), &tcp(port), State::TcpOpening);
        if port == 5 {
            assert!(arrays.at(5).renew(&hit, Direction::In, flags::RST));
        }
        if port >= 6 {
            assert!(arrays.at(6).renew(&hit, Direction::In, flags::SYN | flags::ACK));
            let hit = arrays.at(6).find_out(&tcp(port)).unwrap();
            assert!(arrays.at(6).renew(&hit, Direction::Out, flags::ACK));
        }
    }
    let displaced: Vec<_> =
        (10..16).map(|port| arrays.at(8).open(&tcp(port), &POOL, State::TcpOpening).displaced()).collect();
    assert_eq!(displaced[0], Rank::Ended);
    assert!(displaced[1..].iter().all(|rank| *rank == Rank::HalfOpen), "{displaced:?}");
    assert!(arrays.at(8).find_out(&tcp(0)).is_none(), "the oldest goes first");
    assert!((6..8).all(|port| arrays.at(8).find_out(&tcp(port)).is_some()), "established ones stay");
    arrays.check(8);
}

#[test]
fn a_flow_that_no_rule_allows_is_swept() {
    let arrays = Arrays::new(64);
    for port in 0..20 {
        arrays.open(0, &udp(port), State::UdpUnreplied);
    }
    let wanted = |flow: &Flow| flow.original().source_port >= 5;
    assert_eq!(arrays.sweep(0, wanted), Swept { expired: 0, revoked: 5 });
    arrays.check(0);
    assert_eq!(arrays.gauges.flows.load(), 15);
}
