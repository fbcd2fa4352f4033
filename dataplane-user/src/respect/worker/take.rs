//! Connections that programs named: those that are established are handed over.

use std::{
    collections::{HashMap, HashSet},
    fs,
};

use anyhow::Result;
use dataplane_common::flow::{
    offer::{Offer, Outcome, Verb},
    tuple::protocol,
};

use super::{Carried, PERIOD, Worker, offer};
use crate::{
    kernel::netlink::conntrack::{Change, Conntrack, Entry, TcpChange, Tuple},
    respect::{
        Cause, ENTRIES, Settings,
        judge::{self, lease},
    },
};

impl Worker {
    /// Hands over those that are established.
    pub(super) fn take(
        &mut self,
        conntrack: &mut Conntrack,
        named: HashSet<Tuple>,
        settings: &Settings,
    ) -> Result<()> {
        let (tracked, others): (Vec<Tuple>, Vec<Tuple>) =
            named.into_iter().partition(|tuple| matches!(tuple.protocol, protocol::TCP | protocol::UDP));
        for tuple in others {
            self.leave(tuple, Cause::Protocol);
        }
        if tracked.is_empty() {
            return Ok(());
        }
        // By the original tuple: both directions of a connection may have been named.
        let mut wanted: HashMap<Tuple, (Tuple, Entry)> = HashMap::new();
        let mut found = 0;
        for (tuple, entry) in tracked.iter().zip(conntrack.lookup(&tracked)?) {
            found += usize::from(entry.is_some());
            match entry.map(|entry| (judge::left(&entry, settings), entry)) {
                None => self.leave(*tuple, Cause::NotTracked),
                Some((Some(cause), _)) => self.leave(*tuple, cause),
                Some((None, entry)) => drop(wanted.insert(entry.original, (*tuple, entry))),
            }
        }
        self.note_tracking(found);
        // Before anything is changed of an entry: most connections of a node are its own.
        let mut wanted: Vec<(Tuple, Entry)> = wanted.into_values().collect();
        let reached = self.offer_all(&wanted, Verb::Check)?;
        let mut reached = reached.into_iter();
        wanted.retain(|(tuple, _)| {
            let is_reached = reached.next().is_some_and(|outcome| outcome.is(Outcome::Reachable));
            if !is_reached {
                self.leave(*tuple, Cause::Unreachable);
            }
            is_reached
        });
        let strict = change_tcp(conntrack, &wanted, TcpChange::Liberal, |entry| !entry.is_liberal)?;
        wanted.retain(|(_, entry)| !strict.contains(&entry.original));
        let offers = self.offer_all(&wanted, Verb::Carry)?;
        let mut offers = offers.into_iter();
        let mut packets = Vec::new();
        wanted.retain(|(tuple, _)| match offers.next() {
            Some(offer) if offer.is(Outcome::Carried) => {
                packets.push(offer.packets);
                true
            }
            _ => {
                self.leave(*tuple, Cause::TableFull);
                false
            }
        });
        change_tcp(conntrack, &wanted, TcpChange::Forget, |_| true)?;
        // What the kernel saw of the connection's end before its flow began ended no flow.
        let tuples: Vec<Tuple> = wanted.iter().map(|(_, entry)| entry.original).collect();
        let (now, mut ends) = (self.now(), Vec::new());
        let again = conntrack.lookup(&tuples)?;
        for (((tuple, entry), again), packets) in wanted.into_iter().zip(again).zip(packets) {
            let holds = again
                .is_some_and(|again| again.reply == entry.reply && judge::left(&again, settings).is_none());
            if !holds {
                ends.push(offer(Verb::End, entry.original, entry.reply, 0));
                self.leave(tuple, Cause::NotAssured);
                continue;
            }
            self.shared.report().offered += 1;
            let (timeout, due) = (self.timeouts.full(&entry), now + PERIOD);
            self.due.push_back((due, entry.original));
            let carried =
                Carried { reply: entry.reply, packets, fresh_packets: packets, timeout, due, silent: 0 };
            self.carried.insert(entry.original, carried);
        }
        self.offers.hand_over(&mut ends)
    }

    fn offer_all(&mut self, wanted: &[(Tuple, Entry)], verb: Verb) -> Result<Vec<Offer>> {
        let mut offers: Vec<Offer> = wanted
            .iter()
            .map(|(_, entry)| offer(verb, entry.original, entry.reply, lease(entry.timeout)))
            .collect();
        self.offers.hand_over(&mut offers)?;
        Ok(offers)
    }

    /// Says so where connection tracking is asleep: no rule of this namespace needs it.
    fn note_tracking(&self, found: usize) {
        let is_asleep = found == 0 && fs::read_to_string(ENTRIES).is_ok_and(|entries| entries.trim() == "0");
        let failure = is_asleep.then(|| {
            "conntrack is inactive in this network namespace, since no rule needs it, so that no connection can be carried: write \
             `netfilter = \"bypass\"` on a node without rules"
                .to_owned()
        });
        self.shared.report().failure = failure;
    }
}

/// Changes what the entries of TCP know of sequence numbers, where that is needed; gives those that could not be changed.
fn change_tcp(
    conntrack: &mut Conntrack,
    wanted: &[(Tuple, Entry)],
    tcp: TcpChange,
    is_needed: impl Fn(&Entry) -> bool,
) -> Result<HashSet<Tuple>> {
    let needy =
        wanted.iter().filter(|(_, entry)| entry.original.protocol == protocol::TCP && is_needed(entry));
    let changes: Vec<Change> =
        needy.map(|(_, entry)| Change { original: entry.original, timeout: None, tcp }).collect();
    let done = conntrack.change(&changes)?;
    Ok(changes.iter().zip(done).filter_map(|(change, done)| (!done).then_some(change.original)).collect())
}
