//! Entries that point nowhere, as no daemon writes them: counted as what they are, and the kernel's.

use anyhow::Result;
use dataplane_common::{
    reason::Reason,
    route::Entry,
    trie::{self, MAX_SLABS},
};
use tests::harness::skip::skip_without_root;

use crate::{
    case::{Case, check_on},
    model::Route,
    network::{Network, OUTSIDE},
    packets::{inbound, udp},
};

groups!(destinations_that_point_nowhere, sources_that_point_nowhere);

const NO_ENDPOINT: [u8; 4] = [198, 18, 0, 9];
const NO_NEXT_HOP: [u8; 4] = [198, 19, 0, 9];
const NO_SUCH_KIND: [u8; 4] = [100, 64, 0, 9];
const NO_SUCH_REASON: [u8; 4] = [100, 65, 0, 9];
const NO_CHUNK: [u8; 4] = [100, 66, 0, 9];

fn destinations_that_point_nowhere(n: &Network) -> Vec<Case> {
    let sends = |to: [u8; 4]| n.c1.sends(to, udp()).called(format!("to {to:?}"));
    let receives = |to: [u8; 4]| inbound(n.eth0, OUTSIDE, to, udp()).called(format!("inbound to {to:?}"));
    vec![
        sends(NO_ENDPOINT).must_pass(Reason::TableFault),
        sends(NO_NEXT_HOP).must_pass(Reason::TableFault),
        sends(NO_SUCH_KIND).must_pass(Reason::TableFault),
        sends(NO_SUCH_REASON).must_pass(Reason::TableFault),
        receives(NO_ENDPOINT).must_pass(Reason::TableFault),
        receives(NO_SUCH_KIND).must_pass(Reason::TableFault),
        receives(NO_SUCH_REASON).must_pass(Reason::TableFault),
        receives(NO_NEXT_HOP).must_pass(Reason::TableFault),
    ]
}

fn sources_that_point_nowhere(n: &Network) -> Vec<Case> {
    let sends = |from: [u8; 4]| {
        let sent = n.c1.sends(n.c2.address, udp()).with(|packet| packet.source = from.into());
        sent.called(format!("from {from:?}"))
    };
    vec![
        // Whatever these are, they are no endpoint of this veth.
        sends(NO_ENDPOINT).must_drop(Reason::SpoofedSource),
        sends(NO_NEXT_HOP).must_drop(Reason::SpoofedSource),
        sends(NO_SUCH_KIND).must_drop(Reason::SpoofedSource),
        sends(NO_SUCH_REASON).must_drop(Reason::SpoofedSource),
    ]
}

#[test]
fn a_part_of_the_table_is_not_there() -> Result<()> {
    if skip_without_root("a_part_of_the_table_is_not_there") {
        return Ok(());
    }
    let mut network = Network::new()?;
    let cases = |n: &Network| {
        let from = n.c1.sends(n.c2.address, udp()).with(|packet| packet.source = NO_CHUNK.into());
        vec![
            n.c1.sends(NO_CHUNK, udp()).called("from a container").must_pass(Reason::TableFault),
            inbound(n.eth0, OUTSIDE, NO_CHUNK, udp()).called("from outside").must_pass(Reason::TableFault),
            // Whoever that is, it is no endpoint of this veth.
            from.called("as a source").must_drop(Reason::SpoofedSource),
        ]
    };
    // A slab that is not there, and the last one that a word can name, beyond the array of slabs.
    for chunk in [trie::chunk_number(MAX_SLABS - 1, 0), (1 << 28) - 1] {
        network.poke(NO_CHUNK, Entry::chunk(chunk), Route::MissingChunk)?;
        let cases = cases(&network);
        check_on(&mut network, &cases)?;
    }
    Ok(())
}
