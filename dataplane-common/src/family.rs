//! Address families, as a type parameter of whatever is the same for both.

use core::{fmt, hash::Hash};

use crate::{
    atomic::Word64,
    net::{Ipv4Be, Ipv6Be},
};

/// An address family: IPv4 or IPv6.
pub trait Family: Copy + Default + Eq + Hash + fmt::Debug + 'static {
    /// An address as it stands in a header.
    type Address: Copy + Eq + Hash + fmt::Debug;

    /// Two addresses as words that are compared at once.
    type Pair: Copy + Eq + fmt::Debug;

    /// The same in memory that several CPUs read and write.
    type PairCell: Default + fmt::Debug;

    /// Whether all of a flow's record lies in one cache line.
    const IS_ONE_LINE: bool;

    /// The words of two addresses.
    fn pair(first: Self::Address, second: Self::Address) -> Self::Pair;

    /// The first address of a pair.
    fn first(pair: &Self::Pair) -> Self::Address;

    /// The second address of a pair.
    fn second(pair: &Self::Pair) -> Self::Address;

    /// Reads a pair.
    fn load(cell: &Self::PairCell) -> Self::Pair;

    /// Writes a pair.
    fn store(cell: &Self::PairCell, pair: &Self::Pair);

    /// Zero where the cell holds that pair.
    fn difference(cell: &Self::PairCell, pair: &Self::Pair) -> u64;

    /// One word that depends on each bit of the pair.
    fn fold(pair: &Self::Pair) -> u64;

    /// The same of one address.
    fn fold_address(address: Self::Address) -> u64;
}

/// IPv4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct V4;

/// IPv6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct V6;

impl Family for V4 {
    type Address = Ipv4Be;
    type Pair = u64;
    type PairCell = Word64;

    const IS_ONE_LINE: bool = true;

    #[inline(always)]
    fn pair(first: Ipv4Be, second: Ipv4Be) -> u64 {
        first.to_wire() as u64 | (second.to_wire() as u64) << 32
    }

    #[inline(always)]
    fn first(pair: &u64) -> Ipv4Be {
        Ipv4Be::from_wire(*pair as u32)
    }

    #[inline(always)]
    fn second(pair: &u64) -> Ipv4Be {
        Ipv4Be::from_wire((*pair >> 32) as u32)
    }

    #[inline(always)]
    fn load(cell: &Word64) -> u64 {
        cell.load()
    }

    #[inline(always)]
    fn store(cell: &Word64, pair: &u64) {
        cell.store(*pair);
    }

    #[inline(always)]
    fn difference(cell: &Word64, pair: &u64) -> u64 {
        cell.load() ^ pair
    }

    #[inline(always)]
    fn fold(pair: &u64) -> u64 {
        *pair
    }

    #[inline(always)]
    fn fold_address(address: Ipv4Be) -> u64 {
        address.to_wire() as u64
    }
}

/// An odd constant of SplitMix64 (Steele, Lea and Flood, 2014).
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

#[inline(always)]
fn fold_words(words: &[u64; 2]) -> u64 {
    let high = words[0].wrapping_mul(ODD);
    high ^ high >> 32 ^ words[1]
}

impl Family for V6 {
    type Address = Ipv6Be;
    type Pair = [u64; 4];
    type PairCell = [Word64; 4];

    const IS_ONE_LINE: bool = false;

    #[inline(always)]
    fn pair(first: Ipv6Be, second: Ipv6Be) -> [u64; 4] {
        let ([a, b], [c, d]) = (first.to_wire(), second.to_wire());
        [a, b, c, d]
    }

    #[inline(always)]
    fn first(pair: &[u64; 4]) -> Ipv6Be {
        Ipv6Be::from_wire([pair[0], pair[1]])
    }

    #[inline(always)]
    fn second(pair: &[u64; 4]) -> Ipv6Be {
        Ipv6Be::from_wire([pair[2], pair[3]])
    }

    #[inline(always)]
    fn load(cell: &[Word64; 4]) -> [u64; 4] {
        [cell[0].load(), cell[1].load(), cell[2].load(), cell[3].load()]
    }

    #[inline(always)]
    fn store(cell: &[Word64; 4], pair: &[u64; 4]) {
        cell[0].store(pair[0]);
        cell[1].store(pair[1]);
        cell[2].store(pair[2]);
        cell[3].store(pair[3]);
    }

    #[inline(always)]
    fn difference(cell: &[Word64; 4], pair: &[u64; 4]) -> u64 {
        (cell[0].load() ^ pair[0])
            | (cell[1].load() ^ pair[1])
            | (cell[2].load() ^ pair[2])
            | (cell[3].load() ^ pair[3])
    }

    #[inline(always)]
    fn fold(pair: &[u64; 4]) -> u64 {
        let high = fold_words(&[pair[0], pair[1]]).wrapping_mul(ODD);
        high ^ high >> 29 ^ fold_words(&[pair[2], pair[3]])
    }

    #[inline(always)]
    fn fold_address(address: Ipv6Be) -> u64 {
        fold_words(&address.to_wire())
    }
}
