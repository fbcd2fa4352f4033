//! A place in a bucket of either index.

use super::{
    super::{
        bucket::{REFS, Ref, Refs},
        flow::{Flow, Life},
    },
    Memory, Order, Table,
};

/// What a bucket has for a tuple.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub(super) struct Found {
    /// Whether a flow has the tuple.
    pub(super) is_taken: bool,
    /// What a flow that had it was when it was ended here; [`Order::FREE`] where there was none.
    pub(super) ended: Order,
    /// The place of the reference to it, else a place that is free or leads to a dead record, else [`REFS`].
    pub(super) place: u32,
}

impl<M: Memory> Table<'_, M> {
    /// Looks for a flow that `belongs`, and for a place. One that comes before `limit` ends. The caller holds the lock.
    #[inline(always)]
    pub(super) fn look(&self, refs: &Refs, tag: u8, limit: Order, belongs: impl Fn(&Flow) -> bool) -> Found {
        // Of a place the verifier is to know nothing but that it is one, or it goes on once for each: `Settings::veil`.
        let veiled = |place: u32| self.settings.veil(place.into()) as u32 % (REFS + 1);
        let (mut free, mut may_be_taken) = (veiled(REFS), false);
        let mut place = REFS;
        while place > 0 {
            place -= 1;
            let reference = refs.get(place);
            if reference == Ref::NONE {
                free = veiled(place);
            } else if reference.has_tag(tag) {
                may_be_taken = true;
            }
        }
        if may_be_taken {
            self.look_closely(refs, tag, limit, belongs)
        } else {
            Found { is_taken: false, ended: Order::FREE, place: free }
        }
    }

    /// The same, where a reference may lead to such a flow.
    #[inline(always)]
    fn look_closely(&self, refs: &Refs, tag: u8, limit: Order, belongs: impl Fn(&Flow) -> bool) -> Found {
        let mut found = Found { is_taken: false, ended: Order::FREE, place: REFS };
        self.memory.repeat(REFS, |place| {
            let reference = refs.get(place);
            if reference == Ref::NONE {
                if found.place == REFS {
                    found.place = place;
                }
            } else if reference.has_tag(tag)
                && let Some(flow) = self.memory.flow(reference.slot())
                && belongs(flow)
            {
                let life = Life::from_bits(flow.life.load());
                let order = Order(self.settings.veil(Order::of(life, self.now).0));
                let is_there = order > Order::DEAD;
                // One that has expired must not come back by a packet that found it in time.
                let is_taken = is_there && (order >= limit || !self.end(flow, life));
                found = Found { is_taken, ended: if is_there { order } else { Order::FREE }, place };
            }
            !found.is_taken
        });
        found
    }
}
