//! Which of several paths to a prefix is the best (RFC 4271 section 9.1, RFC 4456 section 9).

use std::net::Ipv4Addr;

use super::{
    attributes::{Attributes, Interner},
    table::Path,
};

/// What the decision must know of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its address.
    pub address: Ipv4Addr,
    /// Its BGP identifier, of its last session.
    pub identifier: Ipv4Addr,
    /// Whether it is in another autonomous system.
    pub external: bool,
}

/// The place of the best path; `None` where none may be used.
///
/// Of RFC 4271 section 9.1.2.2 step e is left out: all next hops that are reachable cost the same.
pub fn best(paths: &[Path], attributes: &Interner, neighbour: impl Fn(&Path) -> Neighbour) -> Option<usize> {
    let mut left: Vec<Candidate<'_>> = paths
        .iter()
        .enumerate()
        .filter(|(_, path)| path.refused.is_none())
        .map(|(place, path)| Candidate {
            place,
            attributes: attributes.get(path.attributes),
            neighbour: neighbour(path),
        })
        .collect();
    keep_least(&mut left, |candidate| u32::MAX - candidate.attributes.preference());
    keep_least(&mut left, |candidate| candidate.attributes.as_path.len());
    keep_least(&mut left, |candidate| candidate.attributes.origin);
    keep_least_med(&mut left);
    keep_least(&mut left, |candidate| !candidate.neighbour.external);
    keep_least(&mut left, |candidate| candidate.originator());
    keep_least(&mut left, |candidate| candidate.attributes.clusters.len());
    keep_least(&mut left, |candidate| candidate.neighbour.address);
    left.first().map(|candidate| candidate.place)
}

#[derive(Clone, Copy)]
struct Candidate<'a> {
    place: usize,
    attributes: &'a Attributes,
    neighbour: Neighbour,
}

impl Candidate<'_> {
    /// RFC 4456: the originator stands for the peer that reflects its route.
    fn originator(&self) -> Ipv4Addr {
        self.attributes.originator.unwrap_or(self.neighbour.identifier)
    }

    /// The autonomous system next to ours on the path; our own has none.
    fn neighbour_as(&self) -> Option<u32> {
        self.attributes.as_path.first().copied()
    }

    fn med(&self) -> u32 {
        self.attributes.med.unwrap_or(0)
    }
}

fn keep_least<K: Ord>(left: &mut Vec<Candidate<'_>>, key: impl Fn(&Candidate<'_>) -> K) {
    if left.len() > 1
        && let Some(least) = left.iter().map(&key).min()
    {
        left.retain(|candidate| key(candidate) == least);
    }
}

/// Step c: compared among paths through the same neighbouring system only, and so not an order of all.
fn keep_least_med(left: &mut Vec<Candidate<'_>>) {
    if left.len() > 1 {
        let all = left.clone();
        left.retain(|one| {
            !all.iter().any(|other| other.neighbour_as() == one.neighbour_as() && other.med() < one.med())
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::PeerId;
    use super::super::testing::{address, attributes};
    use super::*;

    /// The winner of paths that come from peers 10.0.0.1, 10.0.0.2, … in this order; `external` are eBGP.
    fn winner(sets: &[Attributes], external: &[bool]) -> Option<usize> {
        let mut interner = Interner::default();
        let paths: Vec<Path> = sets
            .iter()
            .enumerate()
            .map(|(index, set)| Path::new(interner.acquire(set.clone()), PeerId(index as u16), None))
            .collect();
        best(&paths, &interner, |path| Neighbour {
            address: Ipv4Addr::new(10, 0, 0, path.peer.0 as u8 + 1),
            identifier: Ipv4Addr::new(10, 0, 0, path.peer.0 as u8 + 1),
            external: external.get(usize::from(path.peer.0)).copied().unwrap_or(false),
        })
    }

    #[test]
    fn each_step_decides_where_those_before_it_do_not() {
        let plain = || attributes("10.0.0.9");
        let path = |path: &[u32]| Attributes { as_path: path.into(), ..plain() };
        assert_eq!(winner(&[], &[]), None);
        let preferred = Attributes { local_preference: Some(101), ..path(&[1, 2, 3]) };
        assert_eq!(winner(&[plain(), preferred], &[]), Some(1), "LOCAL_PREF before AS_PATH");
        let unknown = Attributes { origin: 2, ..plain() };
        assert_eq!(winner(&[path(&[1]), unknown.clone()], &[]), Some(1), "AS_PATH before ORIGIN");
        assert_eq!(winner(&[unknown, plain()], &[]), Some(1), "ORIGIN");
        let med = |med, first| Attributes { med: Some(med), ..path(&[first]) };
        assert_eq!(winner(&[med(5, 7), med(4, 7)], &[true, true]), Some(1), "MED of one neighbour");
        assert_eq!(winner(&[med(5, 7), med(4, 8)], &[true, true]), Some(0), "MEDs of two are no matter");
        assert_eq!(winner(&[plain(), plain()], &[false, true]), Some(1), "external before internal");
        let reflected = Attributes { originator: Some(address("9.0.0.1")), ..plain() };
        assert_eq!(winner(&[plain(), reflected.clone()], &[]), Some(1), "the originator's identifier");
        let clusters =
            |count| Attributes { clusters: vec![address("1.1.1.1"); count].into(), ..reflected.clone() };
        assert_eq!(winner(&[clusters(2), clusters(1)], &[]), Some(1), "CLUSTER_LIST");
        assert_eq!(winner(&[plain(), plain()], &[]), Some(0), "the lowest address");
    }

    #[test]
    fn a_med_removes_a_path_that_another_step_would_have_let_win() {
        // Pairwise comparison has no best among these (RFC 4271 section 9.1.2.2 c): elimination has.
        let path =
            |first, med| Attributes { med: Some(med), as_path: [first].into(), ..attributes("10.0.0.9") };
        assert_eq!(winner(&[path(7, 5), path(8, 9), path(7, 4)], &[true; 3]), Some(1));
    }
}
