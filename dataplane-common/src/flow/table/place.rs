//! Places in a bucket.

use super::{
    super::{
        index::{Bucket, MAX_SLOTS, REFS, Ref},
        record::{Flow, Life},
        tuple::Tuple,
    },
    Memory, Order, Table,
};

/// A flow that has a tuple, as its bucket tells.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub(super) struct Found {
    /// What it is: [`Order::FREE`] where no flow has the tuple.
    pub(super) order: Order,
    /// Its slot; [`MAX_SLOTS`] where there is none.
    pub(super) slot: u32,
    /// The place of the reference to it, else a place that is free, else [`REFS`].
    pub(super) place: u32,
}

/// A place for a reference, and what must give way for it.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub(super) struct Room {
    /// What has it: [`Order::FREE`] and [`Order::DEAD`] need not be ended.
    pub(super) order: Order,
    /// The record that the place leads to; [`MAX_SLOTS`] where it is free.
    pub(super) slot: u32,
    /// The place.
    pub(super) place: u32,
}

impl<M: Memory> Table<'_, M> {
    /// Looks for a flow that has the tuple, and for a place.
    #[inline(always)]
    pub(super) fn find(&self, bucket: &Bucket, tag: u8, tuple: &Tuple<M::Family>) -> Found {
        let none =
            Found { order: Order::FREE, slot: MAX_SLOTS, place: bucket.first_free(self.settings.zero) };
        let found = if bucket.may_have(tag, self.settings.zero) {
            self.find_closely(bucket, tag, tuple, none)
        } else {
            none
        };
        // The verifier is to know nothing of them, or it goes on once for each of what may be.
        Found {
            order: Order(self.settings.veil(found.order.0)),
            slot: self.settings.veil32(found.slot),
            place: self.settings.veil32(found.place),
        }
    }

    /// The same, where a reference may lead to such a flow. One that lives counts more than one that does not.
    #[inline(always)]
    fn find_closely(&self, bucket: &Bucket, tag: u8, tuple: &Tuple<M::Family>, none: Found) -> Found {
        let mut found = none;
        self.memory.repeat(REFS, |place| {
            let reference = bucket.get(place);
            let slot = reference.slot();
            if reference.has_tag(tag)
                && let Some(flow) = self.memory.flow(slot)
            {
                let life = Life::from_bits(flow.life.load_acquire());
                let order = Order(self.settings.veil(Order::of(life, self.now).0));
                if order > Order::DEAD && flow.direction_of(tuple).is_some() {
                    found = Found { order, slot, place };
                }
            }
            found.order < Order::ALIVE
        });
        found
    }

    /// A place in a bucket that has none free, other than `except`: one whose reference leads to no flow of this bucket any
    /// more, else that of the first flow to be evicted.
    #[inline(always)]
    pub(super) fn make_room(&self, bucket: &Bucket, number: u32, except: u32) -> Room {
        let mut best = Room { order: Order::NEVER, slot: MAX_SLOTS, place: REFS };
        self.memory.repeat(REFS, |place| {
            let reference = bucket.get(place);
            let slot = reference.slot();
            if place != except
                && let Some(flow) = self.memory.flow(slot)
            {
                let life = Life::from_bits(flow.life.load());
                let is_reference = reference != Ref::NONE && self.belongs(flow, number);
                let order = if is_reference { Order::of(life, self.now) } else { Order::FREE };
                let order = Order(self.settings.veil(order.0));
                if order < best.order {
                    best = Room { order, slot: if order == Order::FREE { MAX_SLOTS } else { slot }, place };
                }
            }
            true
        });
        self.veiled_room(best)
    }

    /// The same, of which the verifier knows nothing any more.
    #[inline(always)]
    pub(super) fn veiled_room(&self, room: Room) -> Room {
        Room {
            order: Order(self.settings.veil(room.order.0)),
            slot: self.settings.veil32(room.slot),
            place: self.settings.veil32(room.place),
        }
    }

    /// The first flow of a bucket to be evicted.
    #[inline(always)]
    pub(super) fn find_victim(&self, bucket: &Bucket) -> Room {
        let mut best = Room { order: Order::NEVER, slot: MAX_SLOTS, place: REFS };
        self.memory.repeat(REFS, |place| {
            let reference = bucket.get(place);
            if reference != Ref::NONE
                && let Some(flow) = self.memory.flow(reference.slot())
            {
                let order = Order::of(Life::from_bits(flow.life.load()), self.now);
                let order = Order(self.settings.veil(order.0));
                if order.is_victim() && order < best.order {
                    best = Room { order, slot: reference.slot(), place };
                }
            }
            true
        });
        self.veiled_room(best)
    }

    /// Whether a flow has a tuple whose bucket is that one.
    #[inline(always)]
    fn belongs(&self, flow: &Flow<M::Family>, number: u32) -> bool {
        let of = |tuple: Tuple<M::Family>| tuple.hash(self.settings.seed).below(self.settings.buckets);
        of(flow.original()) == number || of(flow.reply()) == number
    }
}
