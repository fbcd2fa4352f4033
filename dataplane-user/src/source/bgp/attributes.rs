//! What a route says besides its prefix (RFC 4271 section 5), each distinct set held once.

use std::{collections::HashMap, net::Ipv4Addr, rc::Rc};

/// The preference of a route that brings none (RFC 4271 leaves it to the implementation; 100 is everyone's).
pub const DEFAULT_LOCAL_PREFERENCE: u32 = 100;

/// The attributes that the decision process and the reports use.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Attributes {
    /// NEXT_HOP.
    pub next_hop: Ipv4Addr,
    /// ORIGIN: 0 IGP, 1 EGP, 2 incomplete; less is better.
    pub origin: u8,
    /// LOCAL_PREF, of internal peers only.
    pub local_preference: Option<u32>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// AS_PATH, the neighbour first. Sets are not in it: RFC 9774 has them treated as withdrawals.
    pub as_path: Box<[u32]>,
    /// ORIGINATOR_ID (RFC 4456).
    pub originator: Option<Ipv4Addr>,
    /// CLUSTER_LIST (RFC 4456), the last reflector first.
    pub clusters: Box<[Ipv4Addr]>,
}

impl Attributes {
    /// LOCAL_PREF, or what stands for it.
    pub fn preference(&self) -> u32 {
        self.local_preference.unwrap_or(DEFAULT_LOCAL_PREFERENCE)
    }
}

/// Names a set of attributes in an [`Interner`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttributesId(u32);

#[derive(Debug)]
struct Slot {
    attributes: Rc<Attributes>,
    /// Paths that name it.
    references: u32,
}

/// Sets of attributes, counted by the paths that name them: a million routes have a few thousand.
#[derive(Debug, Default)]
pub struct Interner {
    slots: Vec<Option<Slot>>,
    ids: HashMap<Rc<Attributes>, u32>,
    free: Vec<u32>,
}

impl Interner {
    /// The id of these attributes, with one reference more; [`Self::release`] takes it back.
    pub fn acquire(&mut self, attributes: Attributes) -> AttributesId {
        if let Some(&index) = self.ids.get(&attributes) {
            return self.retain(AttributesId(index));
        }
        let attributes = Rc::new(attributes);
        let slot = Some(Slot { attributes: attributes.clone(), references: 1 });
        let index = match self.free.pop() {
            Some(index) => {
                self.slots[index as usize] = slot;
                index
            }
            None => {
                self.slots.push(slot);
                (self.slots.len() - 1) as u32
            }
        };
        self.ids.insert(attributes, index);
        AttributesId(index)
    }

    /// One reference more.
    pub fn retain(&mut self, id: AttributesId) -> AttributesId {
        if let Some(slot) = &mut self.slots[id.0 as usize] {
            slot.references += 1;
        }
        id
    }

    /// One reference less; with the last one the attributes are forgotten.
    pub fn release(&mut self, id: AttributesId) {
        let place = &mut self.slots[id.0 as usize];
        let Some(slot) = place else { return };
        slot.references -= 1;
        if slot.references == 0 {
            self.ids.remove(&slot.attributes);
            *place = None;
            self.free.push(id.0);
        }
    }

    /// The attributes.
    ///
    /// # Panics
    ///
    /// Where the last reference was released: no path may keep an id beyond it.
    pub fn get(&self, id: AttributesId) -> &Attributes {
        let slot = self.slots[id.0 as usize].as_ref();
        &slot.expect("a path holds a reference to its attributes").attributes
    }

    /// The distinct sets.
    pub fn iter(&self) -> impl Iterator<Item = &Attributes> {
        self.ids.keys().map(|attributes| &**attributes)
    }

    /// How many distinct sets there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.ids.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::attributes;
    use super::*;

    #[test]
    fn equal_sets_are_one_and_go_with_the_last_reference() {
        let mut interner = Interner::default();
        let one = interner.acquire(attributes("10.0.0.1"));
        let same = interner.acquire(attributes("10.0.0.1"));
        let other = interner.acquire(attributes("10.0.0.2"));
        assert_eq!(one, same);
        assert_ne!(one, other);
        interner.release(one);
        assert_eq!(interner.len(), 2);
        interner.release(same);
        assert_eq!(interner.len(), 1);
        let next = interner.acquire(attributes("10.0.0.3"));
        assert_eq!(next, one, "the free slot is used again");
        assert_eq!(interner.get(next).next_hop.to_string(), "10.0.0.3");
    }
}
