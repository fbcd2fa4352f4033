//! Flows on lease: packets do not prolong them.

use super::{super::record::Life, Memory, Table};

impl<M: Memory> Table<'_, M> {
    /// Makes the flow in that slot end at that tick, whatever packets come; false where it has ended meanwhile.
    #[inline(always)]
    pub fn lease(&self, slot: u32, deadline: u32) -> bool {
        let Some(flow) = self.memory.flow(slot) else { return false };
        let life = Life::from_bits(flow.life.load());
        // Packets of such a flow leave its life as it is: only who ends the flow can come in between.
        !life.is_dead() && flow.life.replace(life.to_bits(), life.at(life.progress(), deadline).to_bits())
    }
}
