//! Flows of another table.

use super::{
    super::{record::Binding, record::Known},
    Memory, Ports, Refusal, Request, Table,
};

impl<M: Memory> Table<'_, M> {
    /// Puts a flow of another table into this one, which no program uses yet, with its port and all that is known of it.
    /// One that is there already is brought up to date.
    ///
    /// It is bound to nothing: its next packet finds the rule that it goes on by.
    ///
    /// # Errors
    ///
    /// Why there is no room for it, or that another flow has one of its tuples.
    pub fn adopt(&self, known: &Known<M::Family>) -> Result<(), Refusal> {
        let slot = match self.lookup_rarely(&known.original) {
            Some(hit) if (hit.flow.original(), hit.flow.reply()) == (known.original, known.reply) => hit.slot,
            found => {
                if let Some(hit) = found {
                    // The same two ends have begun anew since it was read.
                    self.end(hit.flow, hit.life);
                }
                let outcome = self.insert(&Request {
                    original: known.original,
                    reply: known.reply,
                    ports: Ports { first: 0, more: 0 },
                    chooses_port: 0,
                    flags: known.flags.into(),
                    state: known.progress.state as u32,
                    binding: Binding::new(0, 0, 0).to_bits(),
                });
                match outcome.refusal() {
                    Some(refusal) => return Err(refusal),
                    None => outcome.slot(),
                }
            }
        };
        self.memory.flow(slot).ok_or(Refusal::Fault)?.restore(known);
        self.memory.counts(slot).ok_or(Refusal::Fault)?.restore(known);
        Ok(())
    }
}
