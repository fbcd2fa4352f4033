//! Which rule of translation holds for a packet.

use aya_ebpf::{btf_maps::Array, macros::btf_map};
use dataplane_common::{
    family::V4,
    flow::{
        record::{Binding, Flow, flags},
        rule::{self, MAX_RULES, Rule, RuleSet, Rules},
        settings::Settings,
        table::{Memory as _, Table},
    },
    net::Ipv4Be,
    next_hop::NextHop,
    repeat::Repeat,
    route::{Entry, Target},
    trace::StepCode,
};

use super::{Maps, table};
use crate::{next_hop, observe, repeat::repeat, route};

#[btf_map]
static FLOW_RULES: Array<Rule, { 2 * MAX_RULES }> = Array::new();

/// The rules that hold.
struct Active(RuleSet);

impl Active {
    #[inline(always)]
    fn of(settings: &Settings) -> Self {
        // SAFETY: a valid word. Volatile, so that place and count are of one set.
        Self(RuleSet::from_bits(unsafe { (&raw const settings.rules).read_volatile() }))
    }
}

impl Repeat for Active {
    #[inline(always)]
    fn repeat(&self, count: u32, body: impl FnMut(u32) -> bool) {
        repeat(count, body);
    }
}

impl Rules for Active {
    #[inline(always)]
    fn count(&self) -> u32 {
        self.0.count()
    }

    #[inline(always)]
    fn rule(&self, index: u32) -> Option<&Rule> {
        FLOW_RULES.get(self.0.first() + index)
    }
}

/// The rule for packets from `source` to `destination` by the next hop.
#[inline(always)]
pub fn find(
    settings: &'static Settings,
    source: Ipv4Be,
    destination: Ipv4Be,
    next_hop: &NextHop,
) -> Option<&'static Rule> {
    let active = Active::of(settings);
    let index = rule::find(&active, source, destination, next_hop.ifindex)?;
    let rule = FLOW_RULES.get(active.0.first() + index)?;
    observe::step(
        StepCode::Rule,
        [address(rule, next_hop).to_host(), rule.ports.first.into(), rule.ports.count()],
    );
    Some(rule)
}

/// The address that packets by the next hop get; [`Ipv4Be::UNSPECIFIED`] while there is none.
#[inline(always)]
pub fn address(rule: &Rule, next_hop: &NextHop) -> Ipv4Be {
    if rule.address == Ipv4Be::UNSPECIFIED { next_hop.source } else { rule.address }
}

/// What flows by the rule are bound to, where they leave by the next hop.
#[inline(always)]
pub fn binding(settings: &Settings, rule: &Rule, next_hop: &NextHop) -> Binding {
    Binding::new(next_hop.ifindex, rule.number as u16, epoch(settings))
}

/// The epoch of the rules.
#[inline(always)]
pub fn epoch(settings: &Settings) -> u16 {
    settings.epoch as u16
}

/// Whether a rule says that packets from `source` to `destination` that leave by `ifindex`, or by any uplink if that is 0,
/// must be translated.
#[inline(always)]
pub fn covers(settings: &Settings, source: Ipv4Be, destination: Ipv4Be, ifindex: u32) -> bool {
    rule::find(&Active::of(settings), source, destination, ifindex).is_some()
}

/// Whether a rule says that such a packet must be translated if it leaves the node, by whichever uplink.
#[inline(always)]
pub fn must_translate(source: Ipv4Be, destination: Ipv4Be) -> bool {
    table().is_some_and(|table| covers(table.settings, source, destination, 0))
}

/// The address that such a packet would be translated to, by the first rule for it.
#[inline(always)]
pub fn translated_address(source: Ipv4Be, destination: Ipv4Be) -> Option<Ipv4Be> {
    let active = Active::of(table()?.settings);
    let index = rule::find(&active, source, destination, 0)?;
    let mut address = FLOW_RULES.get(active.0.first() + index)?.address;
    if address == Ipv4Be::UNSPECIFIED
        && let Some(Target::NextHop(index)) = route::lookup(destination).target()
        && let Ok(next_hop) = next_hop::get(index)
    {
        address = next_hop.source;
    }
    if address == Ipv4Be::UNSPECIFIED { None } else { Some(address) }
}

/// Whether no flow may begin here for now (`nat-share`): the daemon fills another table from this one.
#[inline(always)]
pub fn is_stopped() -> bool {
    table().is_some_and(|table| table.settings.max_flows_per_source == 0)
}

/// Whether anything is translated.
#[inline(always)]
pub fn translates() -> bool {
    table().is_some_and(|table| Active::of(table.settings).0.count() != 0)
}

/// Whether answers to an address with that route may have to be translated, so that connections from there are to be known:
/// what is answered goes back as it came.
#[inline(always)]
pub fn is_tracked(back: Entry) -> bool {
    match back.target() {
        Some(Target::NextHop(index)) => next_hop::translates(index),
        Some(Target::Endpoint(_) | Target::Block) => false,
        Some(Target::Kernel(_)) | None => {
            table().is_some_and(|table| Active::of(table.settings).0.count() != 0)
        }
    }
}

/// Whether a flow would be as it is if it began now, as far as can be seen; it is bound anew then.
#[inline(always)]
pub fn still_holds(table: &Table<'static, Maps>, flow: &Flow<V4>) -> bool {
    // Without any rule nothing is translated, and no answer need be known as one.
    if flow.flags() & flags::BY_MASQUERADE != 0 && Active::of(table.settings).0.count() == 0 {
        return false;
    }
    // What the kernel decided holds as long as it says.
    if flow.flags() & (flags::SNAT | flags::BY_KERNEL) != flags::SNAT {
        return true;
    }
    let reply = flow.reply();
    if !Maps.is_usable(reply.protocol, reply.destination_port) {
        return false;
    }
    let binding = Binding::from_bits(flow.binding.load());
    if binding.epoch() == epoch(table.settings) {
        return true;
    }
    let original = flow.original();
    // Without a route by an uplink, its next packet does not leave, and nothing is known.
    let Some(Target::NextHop(index)) = route::lookup(original.destination).target() else { return true };
    let Ok(next_hop) = next_hop::get(index) else { return true };
    let rule = find(table.settings, original.source, original.destination, next_hop);
    holds_by(table, flow, rule, next_hop)
}

/// The same, for packets by that next hop, and the rule that there is for them.
#[inline(always)]
pub fn holds_by(
    table: &Table<'static, Maps>,
    flow: &Flow<V4>,
    rule: Option<&'static Rule>,
    next_hop: &NextHop,
) -> bool {
    let reply = flow.reply();
    let ifindex = Binding::from_bits(flow.binding.load()).ifindex();
    if ifindex != 0 && ifindex != next_hop.ifindex || !Maps.is_usable(reply.protocol, reply.destination_port)
    {
        return false;
    }
    match rule {
        Some(rule) if address(rule, next_hop) == reply.destination => {
            if !observe::is_trace() {
                flow.binding.store(binding(table.settings, rule, next_hop).to_bits());
            }
            true
        }
        _ => false,
    }
}
