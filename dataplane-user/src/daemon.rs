//! `dataplane run`: keeps the data path in step with the configuration and with the kernel.

mod answer;
mod bgp;
mod connections;
mod events;
mod hooks;
mod host_ports;
mod ipsec;
mod journal;
mod learn;
mod lock;
mod metrics;
mod migrate;
mod offers;
mod reconcile;
mod reload;
mod retry;
mod serve;
mod state;
mod systemd;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use aya::Ebpf;
use ipnet::Ipv4Net;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};
use tracing::{error, info, warn};

use crate::{
    applied::Applied,
    config::{Config, Places},
    control::server,
    datapath::Datapath,
    kernel::{
        attach::{Mode, Place},
        capabilities,
        flow_ports::FlowPorts,
        limits,
        nat::Nat,
        netlink::{IpsecPolicy, Netlink, OwnTarget},
        object::Program,
        pins::{Claim, Held, Pins},
        previous::Previous,
        uplinks::Uplinks,
    },
    log,
    respect::Respect,
    rib::Rib,
    slow_path::SlowPath,
    source::{
        bgp::{Speaker, Surroundings},
        kernel::{Mirror, Policy},
    },
    wanted::{Choice, Destination, Devices, FoundUplinks, Ipsec, Offer, PeerMacs},
};

use events::Unread;
use host_ports::HostPorts;
use journal::Journal;
pub use lock::{InUse, Lock};
use metrics::Metrics;
use migrate::Tables;
use reconcile::Refusal;
pub use reconcile::{read_kernel, remove_everything};
use retry::Retry;
pub use state::{remove_lock, remove_state};

/// How often every flow is looked at whether it has ended, and in how many parts: a part of a million flows takes
/// some milliseconds.
const SWEEP_PERIOD: Duration = Duration::from_secs(8);
const SWEEP_PARTS: u32 = 8;

/// What a reconciliation must look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Stale {
    /// The prefixes that the mirror names as touched; nothing else depends on their routes.
    #[default]
    Prefixes,
    /// Those, and whatever depends on links, addresses and the configuration.
    Picture,
    /// Everything, each route of the kernel's among it.
    Everything,
}

/// Kernel routes that are written between two looks at what else there is to do: some milliseconds' worth.
const CHUNK: usize = 256;

/// The daemon's state.
pub struct Daemon {
    config: Config,
    config_file: Option<PathBuf>,
    places_given: Places,
    pins: Pins,
    /// The maps, which are pinned again where somebody removes the pins.
    held_maps: Held,
    /// Why that failed.
    pin_failure: Option<String>,
    mode: Mode,
    object: Ebpf,
    datapath: Datapath,
    nat: Nat,
    /// What carries connections that the kernel decides, where it does.
    respect: Option<Respect>,
    host_ports: HostPorts,
    uplinks: Uplinks,
    /// The daemon before, as long as its programs are to be replaced by ones with other tables.
    previous: Option<Previous>,
    netlink: Netlink,
    mirror: Mirror,
    macs: PeerMacs,
    /// What was known before of those that are to be asked for again.
    former_macs: PeerMacs,
    devices: Devices,
    /// The uplinks, where the file does not name them.
    found_uplinks: FoundUplinks,
    /// Where the uplinks' programs run, and why.
    choices: Vec<Choice>,
    rib: Rib<Offer>,
    /// Where packets for each router go that an offer names.
    routers: BTreeMap<Ipv4Addr, Destination>,
    /// Which of the kernel's routes are carried, as of the last full reconciliation.
    policy: Policy,
    /// What the next reconciliation must look at.
    stale: Stale,
    slow_path: SlowPath,
    /// The kernel routes that the configuration asks for.
    own_routes: BTreeMap<Ipv4Net, OwnTarget>,
    /// Prefixes that the tables may not hold as wanted: at first, what an earlier run left there.
    routes: Applied<Ipv4Net, Refusal>,
    /// What an earlier run left for routers and may have learned from peers: kept until these had their say.
    held: BTreeSet<Ipv4Net>,
    speaker: Option<Speaker>,
    /// What the speaker was told of the node.
    surroundings: Option<Surroundings>,
    places: BTreeMap<Place, Program>,
    complaints: Vec<String>,
    /// What is wrong with the kernel's forwarding.
    not_forwarding: Vec<String>,
    rules_are_default: bool,
    ipsec_policies: Vec<IpsecPolicy>,
    /// What these leave to the kernel.
    ipsec: Ipsec,
    /// What must be read from the kernel again before the next reconciliation.
    unread: Unread,
    retry: Retry,
    journal: Journal,
    ready_since: Instant,
    metrics: Metrics,
    locks: (Lock, Claim),
}

/// SIGHUP, which is kept from now on until [`run`] reads the file again for it.
///
/// # Errors
///
/// Where the signal cannot be caught.
pub fn hangups() -> Result<Signal> {
    signal(SignalKind::hangup()).context("cannot catch SIGHUP")
}

/// Runs until a signal or a `detach` request ends it. `config` has the directories of `places` already; without
/// a file there is nothing to read again.
///
/// # Errors
///
/// Where the node cannot be taken into service; what an earlier run attached is then as it was.
pub async fn run(
    config: Config,
    config_file: Option<PathBuf>,
    places: Places,
    mut hangup: Signal,
) -> Result<()> {
    limits::raise_open_files();
    capabilities::check()?;
    let lock = Lock::take(&config.node.state_dir)?;
    let pins = Pins::new(&config.node.bpf_dir);
    let fresh = !pins.exist();
    let claim = pins.claim()?;
    let (netlink, mut events) = Netlink::connect().context("cannot open netlink")?;
    match netlink.device_events().await {
        Ok(Some(group)) => events.follow_devices(group)?,
        Ok(None) => {}
        Err(error) => warn!("changes of what the uplinks' devices can do are not followed: {error:#}"),
    }
    let (sender, mut requests) = mpsc::channel(16);
    let metrics = Metrics::new(sender.clone());
    let mut daemon = match Daemon::start(config, config_file, (lock, claim), netlink, metrics).await {
        Err(error) if fresh => {
            pins.remove()?;
            return Err(error);
        }
        started => started?,
    };
    daemon.places_given = places;
    server::listen(&daemon.config.node.state_dir, sender)?;
    daemon.check_rules().await?;
    let ipsec = daemon.check_ipsec().await.and_then(|()| daemon.refuse_ipsec());
    if let Err(error) = ipsec {
        if fresh {
            daemon.pins.remove()?;
        }
        return Err(error);
    }
    let taken_over = match daemon.start_bgp() {
        Ok(()) => daemon.take_over().await,
        refused => refused,
    };
    if let Err(error) = taken_over {
        if fresh {
            reconcile::remove_data_path(&daemon.pins, &daemon.mirror)?;
        }
        return Err(error);
    }
    daemon.configure_metrics().await;
    daemon.ready();

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut watchdog = systemd::watchdog();
    let mut sweeps = tokio::time::interval(SWEEP_PERIOD / SWEEP_PARTS);
    sweeps.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut checks = tokio::time::interval(hooks::CHECK_PERIOD);
    checks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut looks_at_ports = tokio::time::interval(host_ports::PERIOD);
    looks_at_ports.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            event = events.next() => {
                if daemon.gather(event?, &mut events).await? {
                    daemon.try_reconcile().await;
                }
            }
            () = systemd::tick(&mut watchdog) => {}
            _ = sweeps.tick(), if daemon.nat.settings().buckets != 0 => daemon.sweep(),
            _ = checks.tick() => daemon.check_hooks().await,
            () = due(daemon.found_uplinks.due()) => {
                daemon.find_uplinks();
                daemon.stale = daemon.stale.max(Stale::Picture);
                daemon.try_reconcile().await;
            }
            () = daemon.retry.due() => {
                daemon.retry.restart();
                daemon.try_reconcile().await;
            }
            _ = looks_at_ports.tick(), if !daemon.config.masquerade.is_empty() => daemon.update_ports().await,
            () = std::future::ready(()), if daemon.slow_path.is_pending() => daemon.work_slow_path(CHUNK).await,
            news = bgp::next(&mut daemon.speaker) => {
                daemon.heed(news?);
                // There may be more for a while: the server of the requests must have its turn.
                tokio::task::yield_now().await;
            }
            Some(pending) = requests.recv() => {
                if daemon.serve(pending).await {
                    return Ok(());
                }
            }
            _ = hangup.recv() => {
                // What is wrong stands in the log and in the health.
                drop(daemon.serve_reload().await);
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    systemd::stopping();
    if daemon.config.bgp.as_ref().is_some_and(|bgp| bgp.graceful_restart_seconds == 0) {
        // The peers are not to wait for the next run.
        if let Some(speaker) = daemon.speaker.take() {
            speaker.shut_down().await;
        }
    }
    info!(
        "stopping; programs and tables stay in place and keep forwarding (`dataplane detach` removes them)"
    );
    Ok(())
}

impl Daemon {
    /// Loads the programs over the tables of an earlier run, or over new ones.
    async fn start(
        config: Config,
        config_file: Option<PathBuf>,
        locks: (Lock, Claim),
        netlink: Netlink,
        metrics: Metrics,
    ) -> Result<Self> {
        let pins = Pins::new(&config.node.bpf_dir);
        pins.create()?;
        state::link_pins(&config)?;
        let Tables { mut object, datapath, nat, uplinks, previous } = Tables::open(&pins, &config)?;
        let host_ports = HostPorts::new(FlowPorts::open(&mut object)?, &config.node.state_dir);
        let mirror = read_kernel(&netlink).await?;
        let respect = connections::start(&config, &mut object)?;
        let (held, left): (BTreeSet<_>, BTreeSet<_>) = datapath.prefixes().into_iter().partition(|prefix| {
            config.bgp.is_some() && matches!(datapath.get(*prefix), Some(Destination::NextHop(_)))
        });
        let mut routes = Applied::default();
        routes.mark(left);
        let mut slow_path = SlowPath::adopt(&mirror);
        slow_path.postpone(&held);
        Ok(Self {
            mode: Mode::choose(config.datapath.tc_attach),
            config,
            config_file,
            places_given: Places::default(),
            held_maps: Held::open(&pins)?,
            pin_failure: None,
            pins,
            object,
            netlink,
            mirror,
            macs: PeerMacs::new(),
            former_macs: PeerMacs::new(),
            devices: Devices::default(),
            found_uplinks: FoundUplinks::default(),
            choices: Vec::new(),
            routes,
            held,
            datapath,
            nat,
            respect,
            host_ports,
            uplinks,
            previous,
            rib: Rib::default(),
            routers: BTreeMap::new(),
            policy: Policy::default(),
            stale: Stale::default(),
            slow_path,
            own_routes: BTreeMap::new(),
            speaker: None,
            surroundings: None,
            places: BTreeMap::new(),
            complaints: Vec::new(),
            not_forwarding: Vec::new(),
            rules_are_default: true,
            ipsec_policies: Vec::new(),
            ipsec: Ipsec::default(),
            unread: Unread::default(),
            retry: Retry::default(),
            journal: Journal::default(),
            ready_since: Instant::now(),
            metrics,
            locks,
        })
    }

    fn ready(&mut self) {
        self.ready_since = Instant::now();
        self.log_health();
        log::ready();
        systemd::ready();
    }

    fn sweep(&mut self) {
        if let Err(error) = self.nat.sweep(&mut self.object, SWEEP_PARTS) {
            error!("{error:#}");
        }
    }

    async fn try_reconcile(&mut self) {
        let result = self.catch_up().await;
        if result.is_err() {
            self.stale = self.stale.max(Stale::Picture);
        }
        self.retry.note(result);
        self.log_health();
    }
}

/// Returns at that time: never, where there is none.
async fn due(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
