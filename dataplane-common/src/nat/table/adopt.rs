//! Flows of another table.

use super::{super::flow::Known, Memory, Pool, Refusal, Table};

impl<M: Memory> Table<'_, M> {
    /// Puts a flow of another table into this one, which no program uses yet, with its port and all that is known of it.
    /// One that is there already is brought up to date.
    ///
    /// # Errors
    ///
    /// Why there is no room for it, or that another flow has its port.
    pub fn adopt(&self, known: &Known) -> Result<(), Refusal> {
        if let Some(hit) = self.search_out(&known.original) {
            if (hit.flow.translated_address(), hit.flow.translated_port()) == (known.address, known.port) {
                hit.flow.restore(known);
                return Ok(());
            }
            // The same two ends have begun anew since it was read.
            self.end(hit.flow, hit.life);
        }
        let pool = Pool { address: known.address, first: known.port, count: 1 };
        let outcome = self.open(&known.original, &pool, known.progress.state);
        if let Some(refusal) = outcome.refusal() {
            return Err(refusal);
        }
        self.memory.flow(outcome.slot()).ok_or(Refusal::Fault)?.restore(known);
        Ok(())
    }
}
