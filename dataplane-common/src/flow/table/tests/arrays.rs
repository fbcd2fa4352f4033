//! A table in arrays, and addresses of both families for its flows.

use super::*;

/// A table in memory.
pub(super) struct Arrays<F: Family> {
    pub(super) buckets: Vec<Bucket>,
    pub(super) flows: Vec<Flow<F>>,
    pub(super) counts: Vec<Counts>,
    pub(super) taken: Vec<Word64>,
    shares: Vec<Word32>,
    port_uses: Vec<Word32>,
    pub(super) gauges: Gauges,
    pub(super) settings: Settings,
    /// Ports that may not be used.
    pub(super) left_out: HashSet<(u8, u16)>,
}

impl<F: Family> Memory for Arrays<F> {
    type Family = F;

    fn bucket(&self, number: u32) -> Option<&Bucket> {
        self.buckets.get(number as usize)
    }

    fn flow(&self, slot: u32) -> Option<&Flow<F>> {
        self.flows.get(slot as usize)
    }

    fn counts(&self, slot: u32) -> Option<&Counts> {
        self.counts.get(slot as usize)
    }

    fn taken(&self, word: u32) -> Option<&Word64> {
        self.taken.get(word as usize)
    }

    fn share(&self, index: u32) -> Option<&Word32> {
        self.shares.get(index as usize)
    }

    fn port_use(&self, index: u32) -> Option<&Word32> {
        self.port_uses.get(index as usize)
    }

    fn is_usable(&self, protocol: u8, port: u16) -> bool {
        !self.left_out.contains(&(protocol, port))
    }

    fn gauges(&self) -> Option<&Gauges> {
        Some(&self.gauges)
    }
}

impl<F: Family> Repeat for Arrays<F> {
    fn repeat(&self, count: u32, body: impl FnMut(u32) -> bool) {
        Plainly.repeat(count, body);
    }
}

/// Addresses for tests: containers, remote ends, and an address of the node.
pub(super) trait Addresses: Family {
    fn container(host: u8) -> Self::Address;
    fn remote(host: u8) -> Self::Address;
    fn node() -> Self::Address;
}

impl Addresses for V4 {
    fn container(host: u8) -> Self::Address {
        Ipv4Addr::new(172, 19, 35, host).into()
    }

    fn remote(host: u8) -> Self::Address {
        Ipv4Addr::new(192, 0, 2, host).into()
    }

    fn node() -> Self::Address {
        Ipv4Addr::new(198, 51, 100, 1).into()
    }
}

impl Addresses for V6 {
    fn container(host: u8) -> Self::Address {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 35, 0, 0, 0, host.into()).into()
    }

    fn remote(host: u8) -> Self::Address {
        Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, host.into()).into()
    }

    fn node() -> Self::Address {
        Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1).into()
    }
}

fn many<T: Default>(count: u32) -> Vec<T> {
    (0..count).map(|_| T::default()).collect()
}

impl<F: Addresses> Arrays<F> {
    pub(super) fn new(max_flows: u32) -> Self {
        let buckets = buckets_for(max_flows);
        let records = words_of_records(max_flows) * RECORDS_PER_WORD;
        let mut timeouts = [0; TIMEOUTS];
        for state in State::ALL {
            timeouts[*state as usize] = ticks(state.default_timeout());
        }
        Self {
            buckets: many(buckets),
            flows: many(records),
            counts: many(records),
            taken: many(words_of_records(max_flows)),
            shares: many(SHARES),
            port_uses: many(PORT_USES),
            gauges: Gauges::default(),
            settings: Settings {
                seed: 0x1234_5678_9abc_def0,
                buckets,
                max_flows,
                max_flows_per_source: u32::MAX,
                rules: 0,
                epoch: 0,
                zero: 0,
                timeouts,
            },
            left_out: HashSet::new(),
        }
    }

    pub(super) fn insert(&self, now: u32, tuple: &Tuple<F>, state: State) -> Outcome {
        self.at(now).insert(&snat(tuple, PORTS, state))
    }

    /// Inserts a flow that must not be refused.
    pub(super) fn open(&self, now: u32, tuple: &Tuple<F>, state: State) -> Hit<'_, F> {
        let outcome = self.insert(now, tuple, state);
        assert_eq!(outcome.refusal(), None, "{outcome:?}");
        self.at(now).hit(outcome.slot(), tuple).expect("a flow")
    }

    pub(super) fn at(&self, now: u32) -> Table<'_, Self> {
        Table { memory: self, settings: &self.settings, now }
    }

    /// Sweeps the whole table.
    pub(super) fn sweep(&self, now: u32, go_on: impl Fn(&Flow<F>) -> bool) -> Swept {
        let table = self.at(now);
        (0..table.stretches()).map(|stretch| table.sweep(stretch, &go_on)).fold(
            Swept::default(),
            |sum, one| Swept { expired: sum.expired + one.expired, revoked: sum.revoked + one.revoked },
        )
    }

    /// The records that are taken, by their bits.
    pub(super) fn taken(&self) -> Vec<u32> {
        let bits = self.taken.iter().map(Word64::load).zip((0..).step_by(RECORDS_PER_WORD as usize));
        bits.flat_map(|(word, first)| {
            (0..64).filter(move |bit| word >> bit & 1 != 0).map(move |bit| first + bit)
        })
        .collect()
    }

    /// What must hold whenever nobody is at work: each flow is found in both directions, no two have a tuple in common, no
    /// record is lost, and the counts are right.
    pub(super) fn check(&self, now: u32) {
        let table = self.at(now);
        let taken = self.taken();
        assert_eq!(taken.len(), self.gauges.records.load() as usize);
        let mut tuples = HashSet::new();
        let (mut counted, mut translated) = (0, 0);
        for (slot, flow) in self.flows.iter().enumerate() {
            let life = Life::from_bits(flow.life.load());
            let is_taken = taken.contains(&(slot as u32));
            if life.is_dead() {
                assert_eq!(is_taken, life.is_to_reclaim(), "record {slot}: {life:?}");
                continue;
            }
            counted += 1;
            translated += u32::from(flow.flags() & flags::SNAT != 0);
            assert!(is_taken, "a flow in a free record");
            let (original, reply) = (flow.original(), flow.reply());
            assert!(table.share(&original, flow.flags()).unwrap().load() > 0);
            if !life.is_alive(now) {
                continue;
            }
            for direction in Direction::BOTH {
                let tuple = flow.tuple(direction);
                assert!(tuples.insert(tuple), "{tuple:?} twice");
                for hit in [table.lookup(&tuple), table.lookup_rarely(&tuple)] {
                    let hit = hit.expect("found by its packets");
                    assert_eq!(
                        (hit.slot as usize, hit.direction),
                        (slot, direction),
                        "{original:?} {reply:?}"
                    );
                }
            }
        }
        assert_eq!(self.gauges.flows.load(), counted);
        assert_eq!(self.shares.iter().map(Word32::load).sum::<u32>(), counted);
        assert_eq!(self.port_uses.iter().map(Word32::load).sum::<u32>(), translated);
    }
}
