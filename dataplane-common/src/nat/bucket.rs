//! The two indexes of the flow table: a bucket of each is a cache line.

use crate::{
    atomic::{Word32, Word64},
    repeat::Repeat,
};

/// Flows in a bucket of tags, and so records that belong to it.
pub const LANES: u32 = 16;

/// References in a bucket of them.
pub const REFS: u32 = 15;

/// Flows that a bucket is meant for: with a bucket for each 8, one in 250 is found full in a full table.
pub const FLOWS_PER_BUCKET: u32 = 8;

/// Bytes of map memory for each bucket: tags, references and records.
pub const BUCKET_BYTES: usize =
    size_of::<Tags>() + size_of::<Refs>() + LANES as usize * size_of::<super::flow::Flow>();

/// How often a lock is tried: the holder runs on another CPU and needs no longer than a few microseconds.
const LOCK_TRIES: u32 = 128;

/// A lock that only BPF programs take. They cannot be ended with it, and softirqs do not interrupt each other.
#[repr(transparent)]
#[derive(Debug, Default)]
pub struct Lock(Word32);

impl Lock {
    /// Takes the lock; false where another CPU kept it too long.
    #[inline(always)]
    pub fn take(&self, repeat: &impl Repeat) -> bool {
        let mut taken = self.0.replace(0, 1);
        if !taken {
            repeat.repeat(LOCK_TRIES, |_| {
                taken = self.0.replace(0, 1);
                !taken
            });
        }
        taken
    }

    /// Gives the lock back.
    #[inline(always)]
    pub fn release(&self) {
        self.0.swap(0);
    }
}

/// For packets out: 16 bits of each flow's hash, 0 for none. The lane is the flow's place in the records.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct Tags {
    words: [Word64; 4],
    /// Held by whoever writes a tag, or a record of this bucket.
    pub lock: Lock,
    reserved: [u32; 7],
}

const _: () = assert!(size_of::<Tags>() == 64);

const LANES_PER_WORD: u32 = 4;
const LOW_BITS: u64 = 0x0001_0001_0001_0001;
const HIGH_BITS: u64 = 0x8000_8000_8000_8000;

impl Tags {
    /// The tag of a lane.
    #[inline(always)]
    pub fn get(&self, lane: u32) -> u16 {
        (self.word(lane).load() >> shift(lane)) as u16
    }

    /// Sets the tag of a lane. The caller holds the lock.
    #[inline(always)]
    pub fn set(&self, lane: u32, tag: u16) {
        let word = self.word(lane);
        word.store(word.load() & !(0xffff << shift(lane)) | u64::from(tag) << shift(lane));
    }

    /// Whether one of the four lanes from `lane` on (a multiple of four) may have the tag: no false "no".
    #[inline(always)]
    pub fn may_have(&self, lane: u32, tag: u16) -> bool {
        zeros(self.word(lane).load() ^ (u64::from(tag) * LOW_BITS)) != 0
    }

    /// Whether any lane may have the tag: no false "no".
    #[inline(always)]
    pub fn any_may_have(&self, tag: u16) -> bool {
        let tags = u64::from(tag) * LOW_BITS;
        let [a, b, c, d] = &self.words;
        zeros(a.load() ^ tags) | zeros(b.load() ^ tags) | zeros(c.load() ^ tags) | zeros(d.load() ^ tags) != 0
    }

    /// The first lane without a tag; [`LANES`] where all have one.
    #[inline(always)]
    pub fn first_free(&self) -> u32 {
        let mut lane = 0;
        while lane < LANES {
            let zeros = zeros(self.word(lane).load());
            if zeros != 0 {
                // The lowest is a true one. Below it are the low bits of its lane and of those before.
                let lowest = zeros & zeros.wrapping_neg();
                let lanes = (lowest.wrapping_sub(1) & LOW_BITS).wrapping_mul(LOW_BITS) >> 48;
                return lane + lanes as u32 - 1;
            }
            lane += LANES_PER_WORD;
        }
        LANES
    }

    #[inline(always)]
    fn word(&self, lane: u32) -> &Word64 {
        &self.words[(lane / LANES_PER_WORD % 4) as usize]
    }
}

/// The high bit of each 16-bit part that is zero, and of some above such a one.
#[inline(always)]
const fn zeros(word: u64) -> u64 {
    // A part that is zero borrows.
    word.wrapping_sub(LOW_BITS) & !word & HIGH_BITS
}

#[inline(always)]
const fn shift(lane: u32) -> u32 {
    lane % LANES_PER_WORD * 16
}

/// For replies: the slots of flows, each with 8 bits of the hash.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct Refs {
    words: [Word32; REFS as usize],
    /// Held by whoever writes a reference.
    pub lock: Lock,
}

const _: () = assert!(size_of::<Refs>() == 64);

/// Most records that a reference can tell apart.
pub const MAX_SLOTS: u32 = 1 << 24;

/// A reference to a flow: 8 bits of hash, 24 bits of slot. The hash bits are not all zero, so no reference is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ref(u32);

impl Ref {
    /// No flow.
    pub const NONE: Self = Self(0);

    /// To the flow in that slot.
    #[inline(always)]
    pub const fn new(tag: u8, slot: u32) -> Self {
        Self((tag as u32) << 24 | slot)
    }

    /// The slot.
    #[inline(always)]
    pub const fn slot(self) -> u32 {
        self.0 & (MAX_SLOTS - 1)
    }

    /// Whether the hash may be the one with that tag.
    #[inline(always)]
    pub const fn has_tag(self, tag: u8) -> bool {
        self.0 >> 24 == tag as u32
    }
}

impl Refs {
    /// The reference in that place, below [`REFS`].
    #[inline(always)]
    pub fn get(&self, place: u32) -> Ref {
        match self.words.get(place as usize) {
            Some(word) => Ref(word.load()),
            None => Ref::NONE,
        }
    }

    /// Sets it. The caller holds the lock.
    #[inline(always)]
    pub fn set(&self, place: u32, reference: Ref) {
        if let Some(word) = self.words.get(place as usize) {
            word.store(reference.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::repeat::Plainly;

    proptest! {
        #[test]
        fn a_tag_that_is_there_is_seen(tags in any::<[u16; 16]>(), wanted in 0..16u32) {
            let bucket = Tags::default();
            for (lane, tag) in tags.iter().enumerate() {
                bucket.set(lane as u32, *tag);
            }
            for (lane, tag) in tags.iter().enumerate() {
                prop_assert_eq!(bucket.get(lane as u32), *tag);
            }
            prop_assert!(bucket.may_have(wanted & !3, tags[wanted as usize]));
            let absent = (1..=u16::MAX).find(|tag| !tags.contains(tag)).unwrap();
            prop_assert!((0..16).step_by(4).all(|lane| !bucket.may_have(lane, absent)));
            prop_assert!(bucket.any_may_have(tags[wanted as usize]) && !bucket.any_may_have(absent));
        }

        #[test]
        fn the_first_free_lane_is_found(tags in any::<[Option<u16>; 16]>()) {
            let bucket = Tags::default();
            for (lane, tag) in tags.iter().enumerate() {
                bucket.set(lane as u32, tag.unwrap_or(0));
            }
            let free = tags.iter().position(|tag| tag.unwrap_or(0) == 0);
            prop_assert_eq!(bucket.first_free(), free.map_or(LANES, |lane| lane as u32));
        }
    }

    #[test]
    fn a_lock_is_held_by_one() {
        let lock = Lock::default();
        assert!(lock.take(&Plainly));
        assert!(!lock.take(&Plainly));
        lock.release();
        assert!(lock.take(&Plainly));
    }
}
