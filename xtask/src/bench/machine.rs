//! The machine under the figures: what it is, how busy it is, and one CPU of it for a measurement.

use std::time::Duration;
use std::{fs, io, mem, thread};

use anyhow::{Context as _, Result, ensure};

/// What every figure depends on.
pub(super) struct Machine {
    /// Model of the CPU, as the kernel names it.
    pub(super) model: String,
    /// CPUs that are online.
    pub(super) cpus: usize,
    /// Release of the running kernel.
    pub(super) kernel: String,
    /// Runnable tasks, the mean of the last minute.
    pub(super) load: f64,
    /// Share of all CPUs' time that was taken while nothing was measured yet.
    pub(super) busy: f64,
}

impl Machine {
    /// Asks the kernel, and watches for a moment how busy the machine is.
    pub(super) fn look() -> Result<Self> {
        let begin = CpuTime::now()?;
        thread::sleep(WATCH);
        let busy = CpuTime::now()?.busy_since(begin);
        let cpuinfo = read("/proc/cpuinfo")?;
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let load = read("/proc/loadavg")?;
        Ok(Self {
            // Not every architecture has the line.
            model: model.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.to_owned()),
            busy,
            cpus: thread::available_parallelism()?.get(),
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            load: load
                .split(' ')
                .next()
                .unwrap_or_default()
                .parse()
                .context("/proc/loadavg has no number")?,
        })
    }
}

/// How long the machine is watched before the run.
const WATCH: Duration = Duration::from_secs(1);

/// The CPU for what is measured: the last, since interrupts tend to go to the first.
pub(super) fn measuring_cpu() -> Result<usize> {
    Ok(thread::available_parallelism()?.get() - 1)
}

/// What became of all CPUs' time, from one call of [`CpuTime::now`] to another.
#[derive(Clone, Copy)]
pub(super) struct CpuTime {
    all: u64,
    idle: u64,
    stolen: u64,
}

impl CpuTime {
    /// The kernel's counters at this moment.
    pub(super) fn now() -> Result<Self> {
        let stat = read("/proc/stat")?;
        // proc_stat(5): user nice system idle iowait irq softirq steal; guest time is part of user time.
        let line =
            stat.lines().find_map(|line| line.strip_prefix("cpu ")).context("/proc/stat has no sum")?;
        let ticks: Vec<u64> = line
            .split_whitespace()
            .take(8)
            .map(str::parse)
            .collect::<Result<_, _>>()
            .context("/proc/stat")?;
        ensure!(ticks.len() == 8, "/proc/stat shows no stolen time");
        Ok(Self { all: ticks.iter().sum(), idle: ticks[3] + ticks[4], stolen: ticks[7] })
    }

    /// The share that was not idle since `before`.
    pub(super) fn busy_since(self, before: Self) -> f64 {
        1.0 - (self.idle - before.idle) as f64 / (self.all - before.all).max(1) as f64
    }

    /// The share that a hypervisor gave to others since `before`.
    pub(super) fn stolen_since(self, before: Self) -> f64 {
        (self.stolen - before.stolen) as f64 / (self.all - before.all).max(1) as f64
    }
}

/// Keeps the calling thread on that CPU, before all ordinary processes.
///
/// Real-time priority, so that what else runs on the machine is not measured. The kernel still gives others
/// a twentieth of the time (sched(7), "Limiting the CPU usage of real-time and deadline processes").
pub(super) fn take_cpu(cpu: usize) -> Result<()> {
    let set = cpu_set(cpu);
    // SAFETY: the set outlives the call; 0 is the calling thread.
    if unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) } != 0 {
        return Err(io::Error::last_os_error()).with_context(|| format!("cannot keep to CPU {cpu}"));
    }
    let parameters = libc::sched_param { sched_priority: 1 };
    // SAFETY: the parameters outlive the call; 0 is the calling thread.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) } != 0 {
        return Err(io::Error::last_os_error()).context("cannot take real-time priority");
    }
    Ok(())
}

/// Keeps a task on that CPU as [`among_equals`] does.
pub(super) fn put_among_equals(pid: u32, cpu: usize) -> Result<()> {
    let set = cpu_set(cpu);
    let id = libc::pid_t::try_from(pid)?;
    // SAFETY: the set outlives the call.
    if unsafe { libc::sched_setaffinity(id, size_of::<libc::cpu_set_t>(), &raw const set) } != 0 {
        return Err(io::Error::last_os_error())
            .with_context(|| format!("cannot keep task {pid} to CPU {cpu}"));
    }
    // SAFETY: the call takes numbers and changes a task's priority alone.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, pid, NICEST) } != 0 {
        return Err(io::Error::last_os_error())
            .with_context(|| format!("cannot set the priority of task {pid}"));
    }
    Ok(())
}

/// The words that start a command on that CPU, which it shares fairly with others that start so; together they go
/// before all else.
///
/// With autogroups each session has a share, by a value of its own (sched(7), "The autogroup feature").
pub(super) fn among_equals(cpu: usize) -> Vec<String> {
    let script = format!("echo {NICEST} > /proc/self/autogroup; exec nice -n {NICEST} \"$@\"");
    let words = ["setsid", "--wait", "taskset", "--cpu-list", &cpu.to_string(), "sh", "-c", &script, "sh"];
    words.map(str::to_owned).to_vec()
}

/// The priority that takes most of an ordinary task's CPU.
const NICEST: i32 = -20;

fn cpu_set(cpu: usize) -> libc::cpu_set_t {
    // SAFETY: all zeros is an empty set, and CPU_SET checks the number against its size.
    unsafe {
        let mut set: libc::cpu_set_t = mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        set
    }
}

/// The words that start a command as [`take_cpu`] does.
pub(super) fn on_cpu(cpu: usize) -> Vec<String> {
    ["taskset", "--cpu-list", &cpu.to_string(), "chrt", "--fifo", "1"].map(str::to_owned).to_vec()
}

/// CPU time that a process has used, all its threads together.
pub(super) fn cpu_time(pid: u32) -> Result<Duration> {
    let mut used = Duration::ZERO;
    for task in fs::read_dir(format!("/proc/{pid}/task")).context("the process is gone")? {
        // Nanoseconds on a CPU come first: Documentation/scheduler/sched-stats.rst.
        let path = task?.path().join("schedstat");
        let text = read(&path.to_string_lossy())?;
        let nanoseconds = text.split(' ').next().unwrap_or_default();
        used += Duration::from_nanos(nanoseconds.parse().context("schedstat has no number")?);
    }
    Ok(used)
}

/// Bytes of memory that a process occupies.
pub(super) fn resident(pid: u32) -> Result<u64> {
    status_bytes(pid, "VmRSS:")
}

/// Bytes of memory that a process occupies for itself alone: not what it has mapped of BPF maps or files.
pub(super) fn resident_alone(pid: u32) -> Result<u64> {
    status_bytes(pid, "RssAnon:")
}

/// A size in proc_pid_status(5).
fn status_bytes(pid: u32, key: &str) -> Result<u64> {
    let status = read(&format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kibibytes.with_context(|| format!("status has no {key}"))?.parse::<u64>()? * 1024)
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}
