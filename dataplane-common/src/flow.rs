//! Connection tracking: the one table of flows, and the algorithm that both halves run on it.
//!
//! A flow has two tuples: that of the packets as they come from whoever began it (*original*), and that of the packets as
//! they come from the other end (*reply*). Without translation the one is the other reversed; SNAT changes the reply's
//! destination, DNAT its source. Which side the container is on is a property of the flow, not of the table.
//!
//! # Layout
//!
//! ```text
//!  original tuple ─ hash ─> Bucket: 15 references ─ slot ─┐
//!                                                         ├─> Flow[slot], Counts[slot]
//!  reply tuple ──── hash ─> Bucket: 15 references ─ slot ─┘
//! ```
//!
//! There is one index, with two references for each flow: a packet of either direction costs one bucket and one record, a
//! cache line each (two for a translated IPv6 flow). The counters lie beside, so that two CPUs that carry the two directions
//! share the record for reading.
//!
//! A flow's [`Life`](record::Life) word alone says whether it lives: references only lead to records, and whoever follows one
//! compares the record's tuples. So a flow exists for both directions or for neither, whatever happens in between.
//!
//! Which records are taken is told by a bit each, and a new flow takes one of the first pages that have room: the memory
//! that flows cost depends on how many there are, and not on how many there may be.
//!
//! # Who writes what
//!
//! * A packet of a living flow takes no lock. It renews the life word by compare-and-exchange, at most once
//!   per tick, and a flow that is ended meanwhile is a miss.
//! * [`insert`](table::Table::insert) holds the locks of both buckets, taken in ascending order. It decides first and ends
//!   others' flows only when it is certain of its own. Only BPF programs take these locks, so no process can die with one.
//! * A flow ends by one compare-and-exchange of its life word. Its record is reclaimed by another one, which one CPU wins: that
//!   one removes both references and frees the record. A reference that stays behind leads to a record that does not match.

pub mod counts;
pub mod index;
pub mod offer;
pub mod record;
pub mod rule;
pub mod settings;
pub mod state;
pub mod table;
pub mod tuple;
