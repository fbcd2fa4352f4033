//! Records: whose they are, and which one a new flow has.

use super::{
    super::{index::MAX_SLOTS, settings::RECORDS_PER_WORD, tuple::Hash},
    Memory, Table,
};

/// Taken records for each word of them that new flows choose from: a word is a page of memory, and flows fill few of them.
const RECORDS_IN_USE: u32 = 56;

/// Words that are looked at for a free record where the first has none.
const TRIES: u32 = 24;

impl<M: Memory> Table<'_, M> {
    /// Takes a record for a flow with that hash; [`MAX_SLOTS`] where none was found.
    ///
    /// Records are taken from the first pages as long as there are few flows, so that those are on few pages: of a large
    /// table with few flows each would otherwise be on a page of its own, and cost every packet a miss of the TLB.
    #[inline(always)]
    pub(super) fn take_record(&self, hash: Hash) -> u32 {
        let Some(gauges) = self.memory.gauges() else { return MAX_SLOTS };
        let words = self.settings.words();
        let in_use = (gauges.records.load() / RECORDS_IN_USE + 1).min(words);
        let mut slot = self.take_of_word(hash.below(in_use));
        if slot == MAX_SLOTS {
            self.memory.repeat(TRIES, |index| {
                // Where flows become more the free records are at the end of those in use, and else anywhere.
                let word =
                    if index % 2 == 0 { in_use - 1 + index / 2 } else { hash.rotated(index).below(in_use) };
                slot = self.take_of_word(word % words.max(1));
                slot == MAX_SLOTS
            });
        }
        if slot != MAX_SLOTS {
            gauges.records.add(1);
        }
        slot
    }

    #[inline(always)]
    fn take_of_word(&self, word: u32) -> u32 {
        let Some(taken) = self.memory.taken(word) else { return MAX_SLOTS };
        let before = taken.load();
        // The lowest bit that is not set.
        let free = !before & before.wrapping_add(1);
        // Another CPU may be quicker.
        if free == 0 || !taken.replace(before, before | free) {
            return MAX_SLOTS;
        }
        word * RECORDS_PER_WORD + free.wrapping_sub(1).count_ones()
    }

    /// Gives back a record that no reference leads to any more. The caller has taken it, or has reclaimed it.
    #[inline(always)]
    pub(super) fn free_record(&self, slot: u32) {
        let (Some(taken), Some(gauges)) = (self.memory.taken(slot / RECORDS_PER_WORD), self.memory.gauges())
        else {
            return;
        };
        // The bit is set, and so it alone changes.
        taken.add((1u64 << (slot % RECORDS_PER_WORD)).wrapping_neg());
        gauges.records.add(u32::MAX); // minus one
    }
}
