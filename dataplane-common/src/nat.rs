//! Translation of addresses and ports (NAPT): the table of flows, and the algorithm that both halves run on it.
//!
//! # Layout
//!
//! ```text
//!  tuple of the first packet ── hash ─> Tags[bucket]: 16 tags ── lane ─> Flow[16 * bucket + lane]
//!  tuple of the replies ─────── hash ─> Refs[bucket]: 15 slot numbers ─> the same Flow
//! ```
//!
//! A flow is one record of one cache line. Its [`Life`](flow::Life) word alone says whether it lives: the two
//! indexes only lead to records, and whoever follows one compares the record itself. So a flow exists for
//! both directions or for neither, whatever happens in between.
//!
//! # Who writes what
//!
//! * A packet of a living flow takes no lock. It renews the life word by compare-and-exchange, at most once
//!   per tick, and a flow that is ended meanwhile is a miss.
//! * [`open`](table::Table::open) and [`sweep`](table::Table::sweep) hold the lock of the tags' bucket, and below it the lock of one
//!   bucket of references at a time. Only BPF programs take these locks, so no process can die with one.
//! * A flow ends by one compare-and-exchange of its life word, by whoever finds it expired or in the way. Then
//!   its lane and its reference may be reused.

pub mod bucket;
pub mod flow;
pub mod rule;
pub mod settings;
pub mod state;
pub mod table;
pub mod tuple;
