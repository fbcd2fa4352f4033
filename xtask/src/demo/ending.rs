//! What the demo says at its end.

use std::time::Duration;

use anyhow::Result;

use super::screen::Screen;
use super::site::Site;

/// How many steps were as they should be, and how long it took; unless `all` were tried, the red one ended them.
pub(super) fn sum_up(screen: &Screen, green: usize, red: usize, all: bool, time: Duration) -> Result<()> {
    screen.heading("The demo")?;
    let seconds = time.as_secs_f64();
    if red == 0 {
        return screen.verdict(true, &format!("{green} steps, all green, in {seconds:.1} s"));
    }
    let rest = if all { "" } else { "; the others need it and were not tried" };
    screen.verdict(false, &format!("{green} steps green, {red} red, in {seconds:.1} s{rest}"))
}

/// What to try, where the demo is gone.
pub(super) fn next(screen: &Screen) -> Result<()> {
    screen.heading("To try next")?;
    screen.print(
        "    cargo xtask demo --keep       the same, left up, with the commands to look around in it\n    \
         cargo xtask test              every test\n    \
         README.md                     the same on a real node\n",
    )
}

/// What to try, where it is up.
pub(super) fn kept(screen: &Screen, site: &Site<'_>) -> Result<()> {
    screen.heading("It is still up. To look around, as root")?;
    let (binary, state_dir) = (site.binary(), site.daemon1.daemon.state_dir());
    let dataplane = format!("{} --state-dir {}", binary.display(), state_dir.display());
    let config = site.daemon1.daemon.config_file();
    let pid = site.daemon1.daemon.process().map_or(0, |process| process.pid());
    let (c1, c3) = (site.c1(), site.c3());
    let lines = [
        format!("{dataplane} status"),
        format!("{dataplane} endpoint list"),
        format!("{dataplane} route list"),
        format!("{dataplane} route get {}", c3.address),
        format!("{dataplane} drops"),
        format!("{dataplane} trace --in {} icmp {} {}", c1.interface, c1.address, c3.address),
        format!("nsenter --net={} ping -c 3 {}", c1.path(), c3.address),
        format!("nsenter --net={} bpftool net show", site.node1().path()),
    ];
    for line in lines {
        screen.print(&format!("    {line}\n"))?;
    }
    screen
        .heading("To see that it forwards without its daemon (process of node1), and then with a new one")?;
    for line in [
        format!("kill -KILL {pid}; nsenter --net={} ping -c 3 {}", c1.path(), c3.address),
        format!(
            "nsenter --net={} {} run --config {} &",
            site.node1().path(),
            binary.display(),
            config.display()
        ),
    ] {
        screen.print(&format!("    {line}\n"))?;
    }
    screen.heading("To change something, and to remove it all")?;
    for line in
        [format!("$EDITOR {}; {dataplane} reload", config.display()), "cargo xtask demo --remove".to_owned()]
    {
        screen.print(&format!("    {line}\n"))?;
    }
    Ok(())
}
