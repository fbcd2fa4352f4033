//! The kernel's IPv4 routes, in the order in which the kernel considers them.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, btree_map::Entry},
    iter,
};

use ipnet::Ipv4Net;

use super::{Effect, is_on_link};
use crate::kernel::netlink::{Place, Route};

/// The order of a table: within a prefix, a route that is for one TOS only comes before one for any, then the
/// lower metric wins, then the place (`fib_find_alias()` in net/ipv4/fib_trie.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    table: u32,
    destination: Ipv4Net,
    tos: Reverse<u8>,
    metric: u32,
    place: i32,
}

impl Key {
    fn of(route: &Route, place: i32) -> Self {
        Self {
            table: route.table,
            destination: route.destination,
            tos: Reverse(route.tos),
            metric: route.metric,
            place,
        }
    }

    /// Before every route of the prefix.
    fn first(table: u32, destination: Ipv4Net) -> Self {
        Self { table, destination, tos: Reverse(u8::MAX), metric: 0, place: i32::MIN }
    }

    /// Behind every route of the prefix.
    fn last(table: u32, destination: Ipv4Net) -> Self {
        Self { table, destination, tos: Reverse(0), metric: u32::MAX, place: i32::MAX }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Routes {
    routes: BTreeMap<Key, Route>,
    /// How many next hops are by each link: a link without any needs no search.
    by_link: BTreeMap<u32, usize>,
    /// How many refer to each nexthop object.
    by_nexthop: BTreeMap<u32, usize>,
    /// How many routes of each table and prefix lead to one link without a gateway: few are, and what others
    /// depend on are they.
    direct: BTreeMap<(u32, Ipv4Net), usize>,
}

impl Routes {
    /// Whether that changed anything: a route that is held already, the same, keeps its place.
    pub(super) fn insert(&mut self, route: Route, place: Place) -> bool {
        let rivals = Key::of(&route, i32::MIN)..=Key::of(&route, i32::MAX);
        let first = self.routes.range(rivals.clone()).next().map(|(key, _)| *key);
        if let (Place::Replace, Some(first)) = (place, first) {
            if self.routes.get(&first) == Some(&route) {
                return false;
            }
            self.take(&first);
        }
        if self.routes.range(rivals.clone()).any(|(_, held)| *held == route) {
            // Reached by a replacement that the list had shown already.
            return place == Place::Replace;
        }
        let key = match (place, first) {
            (_, None) => Key::of(&route, 0),
            (Place::Replace, Some(first)) => first,
            (Place::First, Some(first)) => Key::of(&route, first.place.saturating_sub(1)),
            (Place::Last, Some(first)) => {
                let last = self.routes.range(rivals).next_back().map_or(first, |(key, _)| *key);
                Key::of(&route, last.place.saturating_add(1))
            }
        };
        self.put(key, route);
        true
    }

    fn put(&mut self, key: Key, route: Route) {
        for link in links_of(&route) {
            *self.by_link.entry(link).or_default() += 1;
        }
        if let Some(id) = route.nexthop {
            *self.by_nexthop.entry(id).or_default() += 1;
        }
        if is_on_link(&route) {
            *self.direct.entry((route.table, route.destination)).or_default() += 1;
        }
        self.routes.insert(key, route);
    }

    /// Whether there was such a route. A deletion that the list had shown already finds none.
    pub(super) fn remove(&mut self, route: &Route) -> bool {
        let rivals = Key::of(route, i32::MIN)..=Key::of(route, i32::MAX);
        let key = self.routes.range(rivals).find(|(_, held)| *held == route).map(|(key, _)| *key);
        key.is_some_and(|key| self.take(&key))
    }

    /// Removes the routes that the kernel drops with a link, and does not speak of
    /// (`fib_sync_down_dev()` in net/ipv4/fib_semantics.c); gives their prefixes.
    ///
    /// The addresses of the host themselves (scope host) outlive a link that is only switched `off`. A route of
    /// several next hops goes with the last of them: whether one is left now, `alive` says; it may be
    /// answered with an older state than that of the listing, so such a route is doubted, not removed.
    pub(super) fn remove_by_link(
        &mut self,
        ifindex: u32,
        off: bool,
        alive: impl Fn(u32) -> bool,
    ) -> (Vec<Ipv4Net>, Effect) {
        if !self.by_link.contains_key(&ifindex) {
            return (Vec::new(), Effect::Unchanged);
        }
        let by_link = |route: &Route| links_of(route).any(|link| link == ifindex);
        let mut gone = Vec::new();
        let mut effect = Effect::Unchanged;
        for (key, route) in self.routes.iter().filter(|(_, route)| by_link(route)) {
            if route.multipath {
                if !links_of(route).any(&alive) {
                    effect = Effect::Reload;
                }
            } else if !(off && route.scope == libc::RT_SCOPE_HOST) {
                gone.push(*key);
            }
        }
        for key in &gone {
            self.take(key);
        }
        if effect == Effect::Unchanged && !gone.is_empty() {
            effect = Effect::Changed;
        }
        (gone.into_iter().map(|key| key.destination).collect(), effect)
    }

    /// Whether a route that refers to a nexthop object is by that link.
    pub(super) fn by_nexthop_and_link(&self, ifindex: u32) -> bool {
        let by_both = |route: &Route| route.nexthop.is_some() && links_of(route).any(|link| link == ifindex);
        self.by_link.contains_key(&ifindex)
            && !self.by_nexthop.is_empty()
            && self.routes.values().any(by_both)
    }

    /// Changes the routes that refer to any of these nexthop objects; gives the prefixes of those that are different.
    pub(super) fn change_by_nexthop(&mut self, ids: &[u32], change: impl Fn(&mut Route)) -> Vec<Ipv4Net> {
        let mut changed = Vec::new();
        for key in self.keys_by_nexthop(ids) {
            let Some(mut route) = self.routes.get(&key).cloned() else { continue };
            change(&mut route);
            if self.routes.get(&key) != Some(&route) {
                self.take(&key);
                self.put(key, route);
                changed.push(key.destination);
            }
        }
        changed
    }

    /// Removes the routes that refer to that nexthop object; gives their prefixes.
    pub(super) fn remove_by_nexthop(&mut self, id: u32) -> Vec<Ipv4Net> {
        let keys = self.keys_by_nexthop(&[id]);
        keys.into_iter().filter(|key| self.take(key)).map(|key| key.destination).collect()
    }

    fn keys_by_nexthop(&self, ids: &[u32]) -> Vec<Key> {
        if !ids.iter().any(|id| self.by_nexthop.contains_key(id)) {
            return Vec::new();
        }
        let refers = |route: &Route| route.nexthop.is_some_and(|id| ids.contains(&id));
        self.routes.iter().filter(|(_, route)| refers(route)).map(|(key, _)| *key).collect()
    }

    fn take(&mut self, key: &Key) -> bool {
        let Some(route) = self.routes.remove(key) else { return false };
        for link in links_of(&route) {
            count_down(self.by_link.entry(link));
        }
        if let Some(id) = route.nexthop {
            count_down(self.by_nexthop.entry(id));
        }
        if is_on_link(&route) {
            count_down(self.direct.entry((route.table, route.destination)));
        }
        true
    }

    /// The prefixes of a table that have a route to one link without a gateway.
    pub(super) fn direct(&self, table: u32) -> impl Iterator<Item = Ipv4Net> {
        let all = (table, Ipv4Net::default())..;
        self.direct.range(all).map_while(move |((of, prefix), _)| (*of == table).then_some(*prefix))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Route> {
        self.routes.values()
    }

    /// The routes of one prefix, the kernel's choice first.
    pub(super) fn of(&self, table: u32, destination: Ipv4Net) -> impl Iterator<Item = &Route> {
        self.routes
            .range(Key::first(table, destination)..=Key::last(table, destination))
            .map(|(_, route)| route)
    }

    /// The routes of a table, prefix by prefix, each as [`Self::of`] gives them.
    pub(super) fn by_destination(&self, table: u32) -> impl Iterator<Item = impl Iterator<Item = &Route>> {
        let mut rest = self.routes.range(Key::first(table, Ipv4Net::default())..).peekable();
        iter::from_fn(move || {
            let (key, _) = rest.next_if(|(key, _)| key.table == table)?;
            let destination = key.destination;
            while rest.next_if(|(key, _)| (key.table, key.destination) == (table, destination)).is_some() {}
            Some(destination)
        })
        .map(move |destination| self.of(table, destination))
    }
}

fn count_down<K: Ord>(entry: Entry<'_, K, usize>) {
    if let Entry::Occupied(mut count) = entry {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}

/// The links by which a route leads.
pub(super) fn links_of(route: &Route) -> impl Iterator<Item = u32> {
    route.oif.iter().chain(&route.multipath_oifs).copied()
}
