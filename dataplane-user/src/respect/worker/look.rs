//! Connections that BPF carries, looked at again and again: whether they are in use, and whether the kernel still has them so.

use std::collections::{HashMap, HashSet};

use anyhow::Result;
use dataplane_common::flow::{
    offer::{Offer, Outcome, Verb},
    tuple::protocol,
};

use super::{AT_ONCE, Carried, PERIOD, SILENT_LOOKS, Worker, offer};
use crate::{
    kernel::netlink::conntrack::{Change, Conntrack, Entry, TcpChange, Tuple},
    respect::{
        Cause, Settings,
        judge::{self, lease},
    },
};

/// Timeout of an entry that was closed at the moment at which it was made fresh, in seconds: TIME_WAIT's.
const CLOSED: u32 = 120;

impl Worker {
    /// Looks at those that are due: what is in use goes on and has its entry kept fresh, what is silent for long, or what the kernel
    /// has not or otherwise, is the kernel's again.
    pub(super) fn look(&mut self, conntrack: &mut Conntrack, settings: &Settings) -> Result<()> {
        let now = self.now();
        let mut looked = self.next_due(now);
        if looked.is_empty() {
            return Ok(());
        }
        let mut renewals: Vec<Offer> = looked
            .iter()
            .map(|(tuple, connection)| {
                offer(Verb::Renew, *tuple, connection.reply, lease(connection.timeout))
            })
            .collect();
        self.offers.hand_over(&mut renewals)?;
        // Of those whose flow ended by FIN or RST the kernel has seen the end.
        for ((_, connection), renewal) in looked.iter_mut().zip(&renewals) {
            let is_used = renewal.packets != connection.packets;
            connection.packets = renewal.packets;
            connection.silent = if is_used { 0 } else { connection.silent + 1 };
        }
        let mut renewals = renewals.into_iter();
        looked.retain(|_| renewals.next().is_some_and(|renewal| renewal.is(Outcome::Carried)));
        let mut ends = Vec::new();
        // Not every entry's end is told of: those that were there before anybody listened end in silence.
        let mut entries = entries(conntrack, &looked)?;
        looked.retain(|(tuple, connection)| {
            let entry = entries.get(tuple).filter(|entry| holds(entry, connection, settings));
            if entry.is_none() {
                ends.push(offer(Verb::End, *tuple, connection.reply, 0));
            }
            entry.is_some()
        });
        let mut stale: Vec<Change> = Vec::new();
        for (tuple, connection) in &mut looked {
            let Some(entry) = entries.get(tuple) else { continue };
            // What falls silent must be as fresh as if the kernel had seen the last packet.
            let was_used = connection.packets != connection.fresh_packets;
            if was_used && (entry.timeout < connection.timeout / 4 * 3 || connection.silent > 0) {
                connection.fresh_packets = connection.packets;
                let tcp = if tuple.protocol == protocol::TCP { TcpChange::Forget } else { TcpChange::None };
                stale.push(Change { original: *tuple, timeout: Some(connection.timeout), tcp });
            }
        }
        let refreshed: HashSet<Tuple> = conntrack
            .change(&stale)?
            .into_iter()
            .zip(&stale)
            .filter_map(|(done, change)| done.then_some(change.original))
            .collect();
        self.reclose(conntrack, &looked, &refreshed, settings)?;
        self.shared.report().refreshed += refreshed.len() as u64;
        for (tuple, mut connection) in looked {
            let lives = match refreshed.contains(&tuple) {
                true => connection.timeout,
                false => entries.remove(&tuple).map_or(0, |entry| entry.timeout),
            };
            // The entry must outlive the lease that was just given, and what may come until the next look.
            if connection.silent < SILENT_LOOKS && lives > lease(connection.timeout) + PERIOD {
                connection.due = now + PERIOD;
                self.due.push_back((connection.due, tuple));
                self.carried.insert(tuple, connection);
                self.shared.report().renewed += 1;
            } else {
                ends.push(offer(Verb::End, tuple, connection.reply, 0));
            }
        }
        self.offers.hand_over(&mut ends)
    }

    /// Takes those out that are due; some, where there are many.
    fn next_due(&mut self, now: u32) -> Vec<(Tuple, Carried)> {
        let mut looked = Vec::new();
        while let Some((due, tuple)) = self.due.front().copied()
            && due <= now
            && looked.len() < AT_ONCE
        {
            self.due.pop_front();
            if self.carried.get(&tuple).is_some_and(|connection| connection.due == due)
                && let Some(connection) = self.carried.remove(&tuple)
            {
                looked.push((tuple, connection));
            }
        }
        looked
    }

    /// A connection may have closed between the look at its entry and the change of its timeout: it is not to stay for days.
    fn reclose(
        &self,
        conntrack: &mut Conntrack,
        looked: &[(Tuple, Carried)],
        refreshed: &HashSet<Tuple>,
        settings: &Settings,
    ) -> Result<()> {
        let tcp: Vec<Tuple> =
            refreshed.iter().filter(|tuple| tuple.protocol == protocol::TCP).copied().collect();
        let again = conntrack.lookup(&tcp)?;
        let closed: HashMap<Tuple, Entry> = again
            .into_iter()
            .flatten()
            .filter(|entry| !entry.is_established)
            .map(|entry| (entry.original, entry))
            .collect();
        let closed = looked.iter().filter(|(tuple, connection)| {
            closed.get(tuple).is_some_and(|entry| !holds(entry, connection, settings))
        });
        let changes: Vec<Change> = closed
            .map(|(tuple, _)| Change { original: *tuple, timeout: Some(CLOSED), tcp: TcpChange::None })
            .collect();
        conntrack.change(&changes).map(drop)
    }
}

/// The entries of those, by original tuple.
fn entries(conntrack: &mut Conntrack, looked: &[(Tuple, Carried)]) -> Result<HashMap<Tuple, Entry>> {
    let tuples: Vec<Tuple> = looked.iter().map(|(tuple, _)| *tuple).collect();
    let entries = conntrack.lookup(&tuples)?;
    Ok(entries.into_iter().flatten().map(|entry| (entry.original, entry)).collect())
}

/// Whether the kernel has the connection so that BPF may go on to carry it.
fn holds(entry: &Entry, connection: &Carried, settings: &Settings) -> bool {
    // How much of its timeout is left is looked at apart: it is put back.
    entry.reply == connection.reply
        && matches!(judge::left(entry, settings), None | Some(Cause::ShortTimeout))
}
