//! The index of the flow table, by tuple: a bucket is a cache line.

use crate::{atomic::Word32, repeat::Repeat};

/// References in a bucket.
pub const REFS: u32 = 15;

/// References that a bucket is meant for: in a full table, one bucket in 400 then has no place for one more.
const REFS_PER_BUCKET: u32 = 7;

/// Buckets for so many flows, of which each has two references.
pub const fn buckets_for(max_flows: u32) -> u32 {
    (2 * max_flows).div_ceil(REFS_PER_BUCKET)
}

/// How often a lock is tried: the holder runs on another CPU and needs no longer than a few microseconds.
const LOCK_TRIES: u32 = 128;

/// A lock that only BPF programs take. They cannot be ended with it, and softirqs do not interrupt each other.
#[repr(transparent)]
#[derive(Debug, Default)]
pub struct Lock(Word32);

impl Lock {
    /// Takes the lock if nobody holds it.
    #[inline(always)]
    pub fn try_take(&self) -> bool {
        self.0.replace(0, 1)
    }

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

/// A bucket: the slots of flows, each with 8 bits of the hash of the tuple that leads here.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct Bucket {
    words: [Word32; REFS as usize],
    /// Held by whoever writes a reference.
    pub lock: Lock,
}

const _: () = assert!(size_of::<Bucket>() == 64);

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

impl Bucket {
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
        // A mask beside the comparison: Linux 6.1 sees no bounds in a comparison of the lower half of a register.
        if let Some(word) = self.words.get((place % (REFS + 1)) as usize) {
            word.store(reference.0);
        }
    }

    /// The first place without a reference; [`REFS`] where there is none. Without a branch for each place, as below.
    #[inline(always)]
    pub fn first_free(&self, zero: u32) -> u32 {
        let (mut place, mut free) = (0, 0);
        while place < REFS {
            // A reference is 0 or has its tag, in the highest bits.
            free |= ((self.get(place).0 >> 24 ^ zero).wrapping_sub(1) >> 31) << place;
            place += 1;
        }
        // The lowest bit that is set, or that of no place.
        let free = free | 1 << REFS;
        (free & free.wrapping_neg()).wrapping_sub(1).count_ones()
    }

    /// Whether a reference may lead to a flow of that hash. Without a branch for each, which the verifier would follow: `zero` is
    /// 0, of which the compiler does not know it and so makes no comparison of the shift.
    #[inline(always)]
    pub fn may_have(&self, tag: u8, zero: u32) -> bool {
        let (mut place, mut found) = (0, 0);
        while place < REFS {
            // 1 where the tags are the same: of 0 alone, 1 less has the highest bit.
            found |= (self.get(place).0 >> 24 ^ tag as u32 ^ zero).wrapping_sub(1) >> 31;
            place += 1;
        }
        found != 0
    }

    /// The first reference that may lead to a flow of that hash; [`Ref::NONE`] where there is none.
    #[inline(always)]
    pub fn first(&self, tag: u8) -> Ref {
        let mut place = 0;
        while place < REFS {
            let reference = self.get(place);
            if reference.has_tag(tag) {
                return reference;
            }
            place += 1;
        }
        Ref::NONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repeat::Plainly;

    #[test]
    fn a_lock_is_held_by_one() {
        let lock = Lock::default();
        assert!(lock.take(&Plainly));
        assert!(!lock.take(&Plainly));
        lock.release();
        assert!(lock.take(&Plainly));
    }
}
