//! `dataplane run`: keeps the data path in step with the configuration and with the kernel.

mod answer;
mod bgp;
mod lock;
mod metrics;
mod migrate;
mod nat;
mod offers;
mod reconcile;
mod reload;
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
use dataplane_common::flow::settings::words_of_records;
use ipnet::Ipv4Net;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};
use tracing::{debug, error, info, warn};

use crate::{
    config::{Config, Places},
    control::{
        Answer, BadFile, Request,
        server::{self, Pending},
    },
    datapath::Datapath,
    kernel::{
        attach::{Mode, Place},
        capabilities, limits,
        nat::Nat,
        netlink::{Event, Events, Netlink, OwnTarget},
        object::{Program, Sizes},
        pins::{Claim, Pins},
        previous::Previous,
        uplinks::Uplinks,
    },
    log,
    rib::Rib,
    slow_path::SlowPath,
    source::{
        bgp::{Speaker, Surroundings},
        kernel::{Mirror, Policy},
    },
    wanted::{Choice, Destination, Devices, Offer, PeerMacs},
};

pub use lock::{InUse, Lock};
use metrics::Metrics;
use migrate::Tables;
pub use reconcile::{read_kernel, remove_everything};
pub use state::{remove_lock, remove_state};

/// How long the daemon gathers further events after one, so that a burst costs one reconciliation.
const GATHER: Duration = Duration::from_micros(500);

/// How long a reconciliation that failed waits for its next try.
const RETRY: Duration = Duration::from_secs(2);

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
    mode: Mode,
    object: Ebpf,
    datapath: Datapath,
    nat: Nat,
    uplinks: Uplinks,
    /// The daemon before, as long as its programs are to be replaced by ones with other tables.
    previous: Option<Previous>,
    netlink: Netlink,
    mirror: Mirror,
    macs: PeerMacs,
    devices: Devices,
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
    dirty: BTreeSet<Ipv4Net>,
    /// What an earlier run left for routers and may have learned from peers: kept until these had their say.
    held: BTreeSet<Ipv4Net>,
    speaker: Option<Speaker>,
    /// What the speaker was told of the node.
    surroundings: Option<Surroundings>,
    places: BTreeMap<Place, Program>,
    complaints: Vec<String>,
    rules_are_default: bool,
    ready_since: Instant,
    metrics: Metrics,
    _locks: (Lock, Claim),
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
    let mut failed = false;
    let mut watchdog = systemd::watchdog();
    let mut sweeps = tokio::time::interval(SWEEP_PERIOD / SWEEP_PARTS);
    sweeps.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            event = events.next() => {
                if daemon.gather(event?, &mut events).await? {
                    failed = daemon.try_reconcile().await;
                }
            }
            () = systemd::tick(&mut watchdog) => {}
            _ = sweeps.tick(), if daemon.nat.settings().buckets != 0 => daemon.sweep(),
            () = tokio::time::sleep(RETRY), if failed => failed = daemon.try_reconcile().await,
            () = std::future::ready(()), if daemon.slow_path.is_pending() => daemon.work_slow_path(CHUNK).await,
            news = bgp::next(&mut daemon.speaker) => {
                failed |= daemon.heed(news?);
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
        let Tables { object, datapath, nat, uplinks, previous } = Tables::open(&pins, &config)?;
        let mirror = read_kernel(&netlink).await?;
        let (held, dirty) = datapath.prefixes().into_iter().partition(|prefix| {
            config.bgp.is_some() && matches!(datapath.get(*prefix), Some(Destination::NextHop(_)))
        });
        let mut slow_path = SlowPath::adopt(&mirror);
        slow_path.postpone(&held);
        Ok(Self {
            mode: Mode::choose(config.datapath.tc_attach),
            config,
            config_file,
            places_given: Places::default(),
            pins,
            object,
            netlink,
            mirror,
            macs: PeerMacs::new(),
            devices: Devices::default(),
            choices: Vec::new(),
            dirty,
            held,
            datapath,
            nat,
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
            rules_are_default: true,
            ready_since: Instant::now(),
            metrics,
            _locks: locks,
        })
    }

    fn ready(&mut self) {
        self.ready_since = Instant::now();
        for complaint in &self.complaints {
            warn!("{complaint}");
        }
        log::ready();
        systemd::ready();
    }

    /// Takes in the event and those that come within a moment; says whether anything of them matters.
    async fn gather(&mut self, first: Event, events: &mut Events) -> Result<bool> {
        let mut matters = self.absorb(first).await?;
        let deadline = tokio::time::Instant::now() + GATHER;
        while let Ok(event) = tokio::time::timeout_at(deadline, events.next()).await {
            matters |= self.absorb(event?).await?;
        }
        Ok(matters)
    }

    fn sweep(&mut self) {
        if let Err(error) = self.nat.sweep(&mut self.object, SWEEP_PARTS) {
            error!("{error:#}");
        }
    }

    async fn try_reconcile(&mut self) -> bool {
        match self.catch_up().await {
            Ok(()) => false,
            Err(error) => {
                self.stale = Stale::Everything;
                error!("cannot bring the data path in step, trying again: {error:#}");
                true
            }
        }
    }

    async fn serve_reload(&mut self) -> Result<Vec<String>> {
        systemd::reloading();
        let result = self.reload().await;
        self.metrics.note_reload(&result);
        if let Err(error) = &result {
            error!("cannot reload: {error:#}");
        }
        systemd::ready();
        result
    }

    /// Answers a request; true when the daemon is to end.
    async fn serve(&mut self, pending: Pending) -> bool {
        // Whoever gave up does not expect that it still happens.
        if pending.is_abandoned() {
            debug!("a client went away before its request was begun: {:?}", pending.request);
            return false;
        }
        let Pending { request, answer, .. } = pending;
        let ends = matches!(request, Request::Detach);
        let result = match request {
            Request::Reload => {
                self.serve_reload().await.and_then(|warnings| Ok(serde_json::to_value(warnings)?))
            }
            Request::Detach => self.detach().await.and_then(|left| Ok(serde_json::to_value(left)?)),
            other => self.answer(other).await,
        };
        if let (true, Err(error)) = (ends, &result) {
            error!("detached in part, and ending: {error:#}");
        } else if ends {
            info!("detached: everything is removed");
        }
        // A client that went away gets no answer.
        let _ = answer.send(match result {
            Ok(value) => Answer::Ok(value),
            Err(error) if error.is::<BadFile>() => Answer::BadFile(error.to_string()),
            Err(error) => Answer::Error(format!("{error:#}")),
        });
        if ends {
            // The connection writes the answer on this thread before the runtime ends.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        ends
    }

    /// Goes as far as it can: what stays behind the next `dataplane detach` finds by its pins.
    async fn detach(&mut self) -> Result<Vec<PathBuf>> {
        let ended = self.end_bgp().await;
        let left = remove_everything(&self.pins, &self.netlink).await?;
        ended.map(|()| left)
    }
}

/// The sizes of the maps. Without rules there is no table of flows to speak of.
fn sizes(config: &Config) -> Sizes {
    let limits = config.limits();
    let max_flows = if limits.buckets == 0 { 0 } else { limits.max_flows };
    Sizes {
        endpoints: config.datapath.max_endpoints,
        buckets: limits.buckets.max(1),
        words: words_of_records(max_flows),
    }
}
