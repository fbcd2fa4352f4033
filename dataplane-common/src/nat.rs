//! Translation of addresses and ports (NAPT): the table of flows, and the algorithm that both halves run on it.
//!
//! # Layout
//!
//! ```text
//!  tuple of packets out ─ hash ─> Refs[Out, bucket]: 15 references ─ slot ─┐
//!                                                                          ├─> Flow[slot]
//!  tuple of replies ───── hash ─> Refs[In, bucket]:  15 references ─ slot ─┘
//! ```
//!
//! A flow is one record of one cache line. Its [`Life`](flow::Life) word alone says whether it lives: the two
//! indexes only lead to records, and whoever follows one compares the record itself. So a flow exists for
//! both directions or for neither, whatever happens in between.
//!
//! Which records are taken is told by a bit each, and a new flow takes one of the first pages that have room: what flows
//! cost in memory that a CPU must reach follows from how many there are, and not from how many there may be.
//!
//! # Who writes what
//!
//! * A packet of a living flow takes no lock. It renews the life word by compare-and-exchange, at most once
//!   per tick, and a flow that is ended meanwhile is a miss.
//! * [`open`](table::Table::open) and [`sweep`](table::Table::sweep) hold the lock of a bucket for packets out, and below it
//!   the lock of one bucket for replies at a time. Only BPF programs take these locks, so no process can die with one.
//! * A record that is not taken is nobody's; one that is taken belongs to the bucket for packets out that refers to it, or
//!   to who has taken it and is about to write that reference.
//! * A flow ends by one compare-and-exchange of its life word, by whoever finds it expired or in the way. Then
//!   its record and its references may be reused.

pub mod bucket;
pub mod flow;
pub mod rule;
pub mod settings;
pub mod state;
pub mod table;
pub mod tuple;
