//! Names and numbers by which the two sides, and two runs of the daemon, find each other's things.

use crate::{
    ports::MAP_FLOW_PORTS,
    stats::{HOOK_SLOTS, Hook},
};

/// Version of every layout in this crate and of the maps' shapes; stored beside the pinned maps.
///
/// It changes with any change that makes an older map unreadable. A daemon that finds an older version makes maps of its
/// own and fills them from those, by a reader that stays in `dataplane-user/src/kernel/previous`; it refuses a newer one.
///
/// The feature `next-layout` makes a build of another layout, for the tests of that.
pub const LAYOUT_VERSION: u32 = if cfg!(feature = "next-layout") { 5 } else { 4 };

/// Map of one value: the root of the route table.
pub const MAP_ROUTE_ROOT: &str = "ROUTE_ROOT";
/// Array of maps: the slabs of the route table.
pub const MAP_ROUTE_SLABS: &str = "ROUTE_SLABS";
/// Array of [`Endpoint`](crate::endpoint::Endpoint).
pub const MAP_ENDPOINTS: &str = "ENDPOINTS";
/// Array of [`NextHop`](crate::next_hop::NextHop).
pub const MAP_NEXT_HOPS: &str = "NEXT_HOPS";
/// Per-CPU array of [`HookCounters`](crate::stats::HookCounters), by hook.
pub const MAP_COUNTERS: &str = "COUNTERS";
/// Map of one [`TraceLog`](crate::trace::TraceLog).
pub const MAP_TRACE_LOG: &str = "TRACE_LOG";

/// Array of one [`Settings`](crate::flow::settings::Settings).
pub const MAP_FLOW_SETTINGS: &str = "FLOW_SETTINGS";
/// Array of [`Rule`](crate::flow::rule::Rule): a set of them that holds, and room for the next one.
pub const MAP_FLOW_RULES: &str = "FLOW_RULES";
/// Array of [`Bucket`](crate::flow::index::Bucket): the index by tuple.
pub const MAP_FLOW_INDEX: &str = "FLOW_INDEX";
/// Array of [`Flow`](crate::flow::record::Flow), by slot.
pub const MAP_FLOW_RECORDS: &str = "FLOW_RECORDS";
/// Array of [`Counts`](crate::flow::counts::Counts), by the same slot.
pub const MAP_FLOW_COUNTS: &str = "FLOW_COUNTS";
/// Array of words with a bit for each of 64 flow records: which are taken.
pub const MAP_FLOW_TAKEN: &str = "FLOW_TAKEN";
/// Array of counts of flows, by a hash of the container that they count for.
pub const MAP_FLOW_SHARES: &str = "FLOW_SHARES";
/// Array of counts of flows, by a hash of translated address and remote end.
pub const MAP_FLOW_PORT_USES: &str = "FLOW_PORT_USES";
/// Array of one [`Gauges`](crate::flow::settings::Gauges).
pub const MAP_FLOW_GAUGES: &str = "FLOW_GAUGES";
/// Least-recently-used hash of datagrams whose first fragment belongs to a flow.
pub const MAP_FLOW_FRAGMENTS: &str = "FLOW_FRAGMENTS";
/// Per-CPU array of one [`Stats`](crate::flow::settings::Stats).
pub const MAP_FLOW_STATS: &str = "FLOW_STATS";

/// Per-CPU array of the flow that a packet asks for: by it the programs of a walk hand a packet on to each other.
pub const MAP_FLOW_PENDING: &str = "FLOW_PENDING";
/// Array of one [`Batch`](crate::flow::offer::Batch): connections that the kernel decided.
pub const MAP_FLOW_OFFERS: &str = "FLOW_OFFERS";
/// Ring buffer of [`Ends`](crate::flow::offer::Ends): connections whose packets are left to the kernel, by a sample.
pub const MAP_FLOW_SEEN: &str = "FLOW_SEEN";
/// Array of programs that packets go on in: see [`program_to_decide`], [`PROGRAM_TO_INSERT`]
/// and [`PROGRAM_FOR_FIRST`].
pub const MAP_FLOW_PROGRAMS: &str = "FLOW_PROGRAMS";

/// Array of programs that frames at XDP go on in: see [`PROGRAM_TO_SHOW`].
pub const MAP_XDP_PROGRAMS: &str = "XDP_PROGRAMS";

/// Per-CPU array of one [`Rejection`](crate::reject::Rejection): by it the programs tell the one that sends errors.
pub const MAP_REJECTION: &str = "REJECTION";

/// Map of one [`Monitors`](crate::monitor::Monitors).
pub const MAP_MONITORS: &str = "MONITORS";
/// Array of the monitors' ring buffers, by slot.
pub const MAP_MONITOR_RINGS: &str = "MONITOR_RINGS";
/// Per-CPU array of [`Budgets`](crate::monitor::Budgets), by slot.
pub const MAP_MONITOR_BUDGETS: &str = "MONITOR_BUDGETS";

/// Per-CPU array of what ended a walk: by it the programs tell the one that shows the packet.
pub const MAP_MONITOR_ENDED: &str = "MONITOR_ENDED";

/// The maps that outlive the daemon, and so are pinned.
pub const PINNED_MAPS: &[&str] = &[
    MAP_ROUTE_ROOT,
    MAP_ROUTE_SLABS,
    MAP_ENDPOINTS,
    MAP_NEXT_HOPS,
    MAP_COUNTERS,
    MAP_FLOW_SETTINGS,
    MAP_FLOW_RULES,
    MAP_FLOW_INDEX,
    MAP_FLOW_RECORDS,
    MAP_FLOW_COUNTS,
    MAP_FLOW_TAKEN,
    MAP_FLOW_SHARES,
    MAP_FLOW_PORT_USES,
    MAP_FLOW_PORTS,
    MAP_FLOW_GAUGES,
    MAP_FLOW_FRAGMENTS,
    MAP_FLOW_STATS,
    MAP_FLOW_PROGRAMS,
];

/// Maps that are pinned, too, and made anew where an older daemon left none: those by which monitors reach the programs,
/// the uplinks, which the daemon fills at its start, and what programs tell each other. Nothing is lost with them.
pub const RENEWED_MAPS: &[&str] = &[
    MAP_MONITORS,
    MAP_MONITOR_RINGS,
    MAP_MONITOR_BUDGETS,
    MAP_MONITOR_ENDED,
    MAP_UPLINKS,
    MAP_UPLINK_DEVICES,
    MAP_XDP_PROGRAMS,
    MAP_FLOW_PENDING,
    MAP_FLOW_OFFERS,
    MAP_FLOW_SEEN,
    MAP_REJECTION,
];

/// Load-time constant: 1 in the traced copies of the programs.
pub const GLOBAL_TRACE: &str = "TRACE";

/// Load-time constant: 1 where the kernel decides about each connection (`netfilter = "respect"`).
pub const GLOBAL_RESPECT: &str = "RESPECT";

/// Array of [`Uplink`](crate::uplink::Uplink), by [`slot`](crate::uplink::slot).
pub const MAP_UPLINKS: &str = "UPLINKS";
/// Array of devices: the uplinks that frames can be redirected to, by the same slot.
pub const MAP_UPLINK_DEVICES: &str = "UPLINK_DEVICES";

/// Program at tc ingress of a workload veth.
pub const PROGRAM_FROM_CONTAINER: &str = "from_container";
/// Program at tc ingress of an uplink.
pub const PROGRAM_FROM_UPLINK: &str = "from_uplink";
/// Program at XDP of an uplink.
pub const PROGRAM_XDP_FROM_UPLINK: &str = "xdp_from_uplink";

/// Program that decides about packets of containers that belong to no known flow.
pub const PROGRAM_DECIDE_FROM_CONTAINER: &str = "decide_from_container";
/// The same for packets by an uplink.
pub const PROGRAM_DECIDE_FROM_UPLINK: &str = "decide_from_uplink";

/// Program that goes on with packets by an uplink whose answers must be known as answers.
pub const PROGRAM_TRACKED_FROM_UPLINK: &str = "tracked_from_uplink";

/// Program that searches ports for flows.
pub const PROGRAM_FLOW_SEARCH: &str = "flow_search";

/// Program that inserts flows.
pub const PROGRAM_FLOW_INSERT: &str = "flow_insert";

/// Program that ends the walk of a new flow's first packet.
pub const PROGRAM_FLOW_FIRST: &str = "flow_first";

/// Program that answers a packet with an ICMP error.
pub const PROGRAM_REJECT: &str = "reject";

/// Program that shows packets to monitors.
pub const PROGRAM_SHOW: &str = "show";
/// The same at XDP.
pub const PROGRAM_XDP_SHOW: &str = "xdp_show";

/// Program that sweeps some records of the flow table; it is run, not attached.
pub const PROGRAM_FLOW_SWEEP: &str = "flow_sweep";

/// Program that takes over a flow that the kernel decided; it is run, not attached.
pub const PROGRAM_FLOW_OFFER: &str = "flow_offer";

/// Program that holds the place of `from_container` at a veth that is no endpoint yet, and lets nothing out.
pub const PROGRAM_WAITING: &str = "waiting";

/// `rtm_protocol` of the routes that the daemon writes into the kernel's table.
///
/// 0 to 4 are the kernel's, and the registered ones of `rtnetlink.h` and iproute2's `rt_protos` are left out.
pub const ROUTE_PROTOCOL: u8 = 171;

/// The metric of those routes.
///
/// It is behind 0, which a CNI plugin's and an administrator's routes have, so that these can be added and win; and before
/// the routes of FRR (20), BIRD (32) and Calico (512, 1024), as the file and BGP go before the kernel's table in BPF.
pub const ROUTE_METRIC: u32 = 16;

/// Places in [`MAP_FLOW_PROGRAMS`] and [`MAP_XDP_PROGRAMS`].
pub const PROGRAM_SLOTS: u32 = 2 * HOOK_SLOTS + 1;

/// Where the program is that inserts flows.
pub const PROGRAM_TO_INSERT: u32 = 2 * HOOK_SLOTS;

/// Where the program is that goes on with packets by an uplink whose answers must be known as answers.
pub const PROGRAM_FOR_TRACKED: u32 = HOOK_SLOTS + 4;

/// Where the program is that searches ports for flows.
pub const PROGRAM_TO_SEARCH: u32 = HOOK_SLOTS + 1;

/// Where the program is that shows packets to monitors, in the arrays of both kinds of hook.
pub const PROGRAM_TO_SHOW: u32 = HOOK_SLOTS + 3;

/// Where the program is that answers packets with ICMP errors.
pub const PROGRAM_TO_REJECT: u32 = HOOK_SLOTS + 5;

/// Where the program is that ends the walk of a new flow's first packet. The other places are for programs to come.
pub const PROGRAM_FOR_FIRST: u32 = HOOK_SLOTS + 2;

/// Where the program is that decides about a hook's packets that belong to no known flow.
#[inline(always)]
pub const fn program_to_decide(hook: Hook) -> u32 {
    hook as u32
}

/// Stretches of records that one run of [`PROGRAM_FLOW_SWEEP`] sweeps.
pub const STRETCHES_PER_SWEEP: u32 = 8;

/// Next-hop slots: distinct pairs of router and uplink, not routes.
pub const MAX_NEXT_HOPS: u32 = 16_384;
