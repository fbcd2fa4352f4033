//! Tables of things that routes point to by index: endpoints and next hops.
//!
//! Equal values share a slot. A slot is written once, before any route points to it, and used again only
//! after every program that could have read the last route to it has finished.

use std::{collections::HashMap, hash::Hash};

use anyhow::{Context as _, Result, bail};
use aya::maps::{Array, Map, MapData};
use bytemuck::Pod;

/// A value in the map, as aya wants it.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Value<T>(T);

// SAFETY: transparent over a type that is plain old data already.
unsafe impl<T: Pod> aya::Pod for Value<T> {}

/// The user side of one such table.
pub struct Slots<T: Pod> {
    map: Array<MapData, Value<T>>,
    by_value: HashMap<T, u32>,
    in_use: HashMap<u32, (T, usize)>,
    free: Vec<u32>,
    waiting: Vec<u32>,
    unused_from: u32,
}

impl<T: Pod + Eq + Hash> Slots<T> {
    /// Takes over the map; what routes already point to is told by [`Self::adopt`] next.
    ///
    /// # Errors
    ///
    /// Where the map is not an array of such values.
    pub fn new(map: Map) -> Result<Self> {
        let map = Array::try_from(map).context("a table of slots has another layout")?;
        Ok(Self {
            map,
            by_value: HashMap::new(),
            in_use: HashMap::new(),
            free: Vec::new(),
            waiting: Vec::new(),
            unused_from: 0,
        })
    }

    /// Counts a route that an earlier run left, pointing to the slot.
    ///
    /// # Errors
    ///
    /// Where the index lies outside the map.
    pub fn adopt(&mut self, index: u32) -> Result<T> {
        let Value(value) = self.map.get(&index, 0).with_context(|| format!("no slot {index}"))?;
        self.free.extend(self.unused_from..index);
        self.unused_from = self.unused_from.max(index + 1);
        self.free.retain(|&free| free != index);
        // A run that was killed may have left two slots with one value: each keeps its own users.
        self.by_value.entry(value).or_insert(index);
        self.in_use.entry(index).or_insert((value, 0)).1 += 1;
        Ok(value)
    }

    /// The slot of the value, with one more user.
    ///
    /// `synchronize` is called when only slots that programs may still be reading are left.
    ///
    /// # Errors
    ///
    /// Where the table is full.
    pub fn acquire(&mut self, value: T, synchronize: impl FnOnce() -> Result<()>) -> Result<u32> {
        if let Some(index) = self.by_value.get(&value)
            && let Some((_, users)) = self.in_use.get_mut(index)
        {
            *users += 1;
            return Ok(*index);
        }
        let index = self.take_free(synchronize)?;
        if let Err(error) = self.map.set(index, Value(value), 0) {
            self.free.push(index);
            return Err(error).context("cannot write a table slot");
        }
        self.by_value.insert(value, index);
        self.in_use.insert(index, (value, 1));
        Ok(index)
    }

    /// One user less; the last one frees the slot.
    pub fn release(&mut self, index: u32) {
        let Some((value, users)) = self.in_use.get_mut(&index) else { return };
        *users -= 1;
        if *users == 0 {
            if self.by_value.get(value) == Some(&index) {
                self.by_value.remove(value);
            }
            self.in_use.remove(&index);
            self.waiting.push(index);
        }
    }

    /// The value in a slot that is in use.
    pub fn get(&self, index: u32) -> Option<&T> {
        self.in_use.get(&index).map(|(value, _)| value)
    }

    /// Whether the value has a slot.
    pub fn holds(&self, value: &T) -> bool {
        self.by_value.contains_key(value)
    }

    /// Slots in use.
    pub fn used(&self) -> usize {
        self.in_use.len()
    }

    /// Slots that there are.
    pub fn capacity(&self) -> u32 {
        self.map.len()
    }

    fn take_free(&mut self, synchronize: impl FnOnce() -> Result<()>) -> Result<u32> {
        if let Some(index) = self.free.pop() {
            return Ok(index);
        }
        if self.unused_from < self.map.len() {
            self.unused_from += 1;
            return Ok(self.unused_from - 1);
        }
        if self.waiting.is_empty() {
            bail!("all {} slots are in use", self.map.len());
        }
        synchronize()?;
        self.free.append(&mut self.waiting);
        self.free.pop().context("no slot was waiting")
    }
}
