//! What a packet of a known flow costs.

use super::*;

/// The memory of a table that counts buckets and records that are looked at.
struct Counting<'a> {
    arrays: &'a Arrays<V4>,
    looked_at: RefCell<[usize; 2]>,
}

impl Memory for Counting<'_> {
    type Family = V4;

    fn bucket(&self, number: u32) -> Option<&Bucket> {
        self.looked_at.borrow_mut()[0] += 1;
        self.arrays.bucket(number)
    }

    fn flow(&self, slot: u32) -> Option<&Flow<V4>> {
        self.looked_at.borrow_mut()[1] += 1;
        self.arrays.flow(slot)
    }

    fn counts(&self, slot: u32) -> Option<&Counts> {
        self.arrays.counts(slot)
    }

    fn taken(&self, word: u32) -> Option<&Word64> {
        Memory::taken(self.arrays, word)
    }

    fn share(&self, index: u32) -> Option<&Word32> {
        self.arrays.share(index)
    }

    fn port_use(&self, index: u32) -> Option<&Word32> {
        self.arrays.port_use(index)
    }

    fn is_usable(&self, protocol: u8, port: u16) -> bool {
        self.arrays.is_usable(protocol, port)
    }

    fn gauges(&self) -> Option<&Gauges> {
        self.arrays.gauges()
    }
}

impl Repeat for Counting<'_> {
    fn repeat(&self, count: u32, body: impl FnMut(u32) -> bool) {
        Plainly.repeat(count, body);
    }
}

#[test]
fn a_known_flow_costs_one_bucket_and_one_record() {
    let arrays = Arrays::<V4>::new(64);
    let reply = arrays.open(0, &udp(1), State::UdpUnreplied).flow.reply();
    for tuple in [udp(1), reply] {
        let memory = Counting { arrays: &arrays, looked_at: RefCell::default() };
        let table = Table { memory: &memory, settings: &arrays.settings, now: 0 };
        assert!(table.lookup(&tuple).is_some());
        assert_eq!(memory.looked_at.into_inner(), [1, 1]);
    }
}
