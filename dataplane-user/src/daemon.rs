//! `dataplane run`: keeps the data path in step with the configuration and with the kernel.

mod answer;
mod lock;
mod reconcile;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use aya::Ebpf;
use ipnet::Ipv4Net;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};
use tracing::{error, info, warn};

use crate::{
    config::{self, Config},
    control::{Answer, BadFile, Request, server},
    datapath::Datapath,
    kernel::{
        attach::{Mode, Place},
        netlink::{Event, Events, Netlink},
        object::{self, Program, Purpose},
        pins::Pins,
    },
    rib::Rib,
    slow_path::SlowPath,
    source::kernel::Mirror,
    wanted::{Destination, PeerMacs},
};

pub use lock::Lock;
pub use reconcile::{read_kernel, remove_everything};

/// How long the daemon gathers further events after one, so that a burst costs one reconciliation.
const GATHER: Duration = Duration::from_micros(500);

/// How long a reconciliation that failed waits for its next try.
const RETRY: Duration = Duration::from_secs(2);

/// The daemon's state.
pub struct Daemon {
    config: Config,
    config_file: Option<PathBuf>,
    /// `--state-dir`, which goes before the file's, also when that is read again.
    state_dir_option: Option<PathBuf>,
    pins: Pins,
    mode: Mode,
    object: Ebpf,
    datapath: Datapath,
    netlink: Netlink,
    mirror: Mirror,
    macs: PeerMacs,
    rib: Rib<Destination>,
    slow_path: SlowPath,
    /// Prefixes that the tables may not hold as wanted: at first, what an earlier run left there.
    dirty: BTreeSet<Ipv4Net>,
    places: BTreeMap<Place, Program>,
    complaints: Vec<String>,
    rules_are_default: bool,
    ready_since: Instant,
    _lock: Lock,
}

/// Runs until a signal or a `detach` request ends it. `state_dir_option` is the state directory that was given
/// in place of the file's, if one was: `config` has it already.
///
/// # Errors
///
/// Where the node cannot be taken into service; what an earlier run attached is then as it was.
pub async fn run(
    config: Config,
    config_file: Option<PathBuf>,
    state_dir_option: Option<PathBuf>,
) -> Result<()> {
    let lock = Lock::take(&config.node.state_dir)?;
    let fresh = !Pins::new(&config.node.bpf_dir).exist();
    let (netlink, mut events) = Netlink::connect().context("cannot open netlink")?;
    let pins = Pins::new(&config.node.bpf_dir);
    let mut daemon = match Daemon::start(config, config_file, lock, netlink).await {
        Err(error) if fresh => {
            pins.remove()?;
            return Err(error);
        }
        started => started?,
    };
    daemon.state_dir_option = state_dir_option;
    let mut requests = server::listen(&daemon.config.node.state_dir)?;
    daemon.check_rules().await?;
    if let Err(error) = daemon.take_over().await {
        if fresh {
            reconcile::remove_data_path(&daemon.pins, &daemon.mirror)?;
        }
        return Err(error);
    }
    daemon.ready();

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut failed = false;
    loop {
        tokio::select! {
            event = events.next() => {
                if daemon.gather(event?, &mut events).await? {
                    failed = daemon.try_reconcile().await;
                }
            }
            () = tokio::time::sleep(RETRY), if failed => failed = daemon.try_reconcile().await,
            Some((request, answer)) = requests.recv() => {
                if daemon.serve(request, answer).await {
                    return Ok(());
                }
            }
            _ = hangup.recv() => {
                if let Err(error) = daemon.reload().await {
                    error!("{error:#}");
                }
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
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
        lock: Lock,
        netlink: Netlink,
    ) -> Result<Self> {
        let pins = Pins::new(&config.node.bpf_dir);
        pins.create()?;
        let (object, datapath) = open(&pins, &config)?;
        let mirror = read_kernel(&netlink).await?;
        let slow_path = SlowPath::adopt(&mirror);
        Ok(Self {
            mode: Mode::choose(config.datapath.tc_attach),
            config,
            config_file,
            state_dir_option: None,
            pins,
            object,
            netlink,
            mirror,
            macs: PeerMacs::new(),
            dirty: datapath.prefixes().into_iter().collect(),
            datapath,
            rib: Rib::default(),
            slow_path,
            places: BTreeMap::new(),
            complaints: Vec::new(),
            rules_are_default: true,
            ready_since: Instant::now(),
            _lock: lock,
        })
    }

    fn ready(&mut self) {
        self.ready_since = Instant::now();
        for complaint in &self.complaints {
            warn!("{complaint}");
        }
        println!("ready");
        // Without systemd there is nobody to notify, which is no error.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
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

    async fn try_reconcile(&mut self) -> bool {
        match self.reconcile().await {
            Ok(()) => false,
            Err(error) => {
                error!("cannot bring the data path in step, trying again: {error:#}");
                true
            }
        }
    }

    /// Answers a request; true when the daemon is to end.
    async fn serve(&mut self, request: Request, answer: oneshot::Sender<Answer>) -> bool {
        let ends = matches!(request, Request::Detach);
        let result = match request {
            Request::Reload => self.reload().await.and_then(|warnings| Ok(serde_json::to_value(warnings)?)),
            Request::Detach => {
                remove_everything(&self.pins, &self.netlink).await.map(|()| serde_json::Value::Null)
            }
            other => self.answer(other),
        };
        let failed = result.is_err();
        // A client that went away gets no answer.
        let _ = answer.send(match result {
            Ok(value) => Answer::Ok(value),
            Err(error) if error.is::<BadFile>() => Answer::BadFile(error.to_string()),
            Err(error) => Answer::Error(format!("{error:#}")),
        });
        if ends && !failed {
            info!("detached: everything is removed");
            // The connection writes the answer on this thread before the runtime ends.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        ends && !failed
    }

    /// Reads the file again. What cannot change in a running daemon is refused, and nothing changes then.
    async fn reload(&mut self) -> Result<Vec<String>> {
        let Some(file) = self.config_file.clone() else {
            anyhow::bail!("this daemon runs without a file: there is nothing to read again");
        };
        let mut loaded = config::load(&file).map_err(|failure| {
            BadFile(format!("{failure}\nnothing was changed; the daemon goes on as before"))
        })?;
        if let Some(state_dir) = &self.state_dir_option {
            loaded.config.node.state_dir.clone_from(state_dir);
        }
        refuse_fixed(&self.config, &loaded.config, &file)?;
        self.config = loaded.config;
        let mode = Mode::choose(self.config.datapath.tc_attach);
        if mode != self.mode {
            // All are attached anew, which takes off what was attached the other way.
            self.places.clear();
            self.mode = mode;
        }
        let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
        for warning in &warnings {
            warn!("{warning}");
        }
        self.reconcile().await?;
        info!("read {} again", file.display());
        Ok(warnings)
    }
}

/// The keys that name what a running daemon stands on.
fn refuse_fixed(old: &Config, new: &Config, file: &Path) -> Result<()> {
    let fixed = [
        ("node.state-dir", old.node.state_dir != new.node.state_dir),
        ("node.bpf-dir", old.node.bpf_dir != new.node.bpf_dir),
        ("datapath.max-endpoints", old.datapath.max_endpoints != new.datapath.max_endpoints),
        ("datapath.max-routes", old.datapath.max_routes != new.datapath.max_routes),
        ("log", old.log != new.log),
    ];
    let changed: Vec<_> = fixed.iter().filter(|(_, changed)| *changed).map(|(name, _)| *name).collect();
    if changed.is_empty() {
        return Ok(());
    }
    anyhow::bail!(
        "{}: {} cannot change while the daemon runs: restart it (it forwards meanwhile), or put the old value \
         back; nothing was changed",
        file.display(),
        changed.join(", ")
    )
}

/// The object with its tables: those that are pinned, if they can be used.
fn open(pins: &Pins, config: &Config) -> Result<(Ebpf, Datapath)> {
    let datapath = &config.datapath;
    pins.discard_unusable_maps(datapath.max_endpoints)?;
    let mut object = object::load(&pins.maps(), datapath.max_endpoints, Purpose::Attach)?;
    match Datapath::open(&mut object, datapath.max_routes) {
        Ok(tables) => Ok((object, tables)),
        Err(error) => {
            warn!("the pinned tables cannot be used and are rebuilt: {error:#}");
            pins.discard_maps()?;
            let mut object = object::load(&pins.maps(), datapath.max_endpoints, Purpose::Attach)?;
            let tables = Datapath::open(&mut object, datapath.max_routes)?;
            Ok((object, tables))
        }
    }
}

/// Removes what a daemon left in its state directory, and the directory where nothing else is in it.
///
/// # Errors
///
/// Where a file cannot be removed.
pub fn remove_state(state_dir: &Path) -> Result<()> {
    for name in ["control.sock", "lock"] {
        match std::fs::remove_file(state_dir.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error)
                    .with_context(|| format!("cannot remove {name} in {}", state_dir.display()));
            }
            _ => {}
        }
    }
    // Not empty: it holds somebody else's files, too.
    let _ = std::fs::remove_dir(state_dir);
    Ok(())
}
