//! Services that come with packages: the tests run such programs themselves, each in a namespace of its own, and a
//! routing daemon that the system ran besides would change the machine's own routes.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::install::say_and_run;
use crate::process;

/// What Debian's packages ask whether a service may be started (invoke-rc.d(8)).
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Installs packages that bring these services, and has none of them run, now or from the next start of the system on.
pub(super) fn without<'a>(
    services: impl Iterator<Item = &'a str>,
    install: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let services: Vec<&str> = services.collect();
    if services.is_empty() {
        return install();
    }
    let _policy = Policy::forbid(&services)?;
    install()?;
    services.iter().try_for_each(|service| disable(service))
}

fn disable(service: &str) -> Result<()> {
    let mut command = if process::find("systemctl").is_some() {
        let mut systemctl = Command::new("systemctl");
        systemctl.args(["disable", "--quiet", service]);
        systemctl
    } else {
        let mut update = Command::new("update-rc.d");
        update.args([service, "disable"]);
        update
    };
    say_and_run(&mut command).with_context(|| format!("the service {service} starts with the system"))
}

/// The policy, while packages are installed.
struct Policy;

impl Policy {
    /// None where the machine has a policy of its own, which holds.
    fn forbid(services: &[&str]) -> Result<Option<Self>> {
        let created = fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(POLICY);
        let mut file = match created {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(None),
            created => created.with_context(|| format!("cannot write {POLICY}"))?,
        };
        let policy = Self;
        file.write_all(text(services).as_bytes()).with_context(|| format!("cannot write {POLICY}"))?;
        Ok(Some(policy))
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(Path::new(POLICY)) {
            eprintln!("setup: cannot remove {POLICY}, which keeps services from being started: {error}");
        }
    }
}

/// The policy as a program: 101 is "action forbidden by policy".
fn text(services: &[&str]) -> String {
    let names: Vec<String> =
        services.iter().flat_map(|service| [(*service).to_owned(), format!("{service}.service")]).collect();
    format!("#!/bin/sh\ncase \"$1\" in {}) exit 101 ;; esac\nexit 0\n", names.join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_forbids_these_services_and_no_other() {
        let policy = text(&["frr", "bird"]);
        let asked = |service: &str| {
            let mut shell = Command::new("sh");
            shell.args(["-c", &policy, "policy-rc.d", service, "start"]);
            shell.status().unwrap().code()
        };
        assert_eq!(["frr", "frr.service", "bird"].map(asked), [Some(101); 3]);
        assert_eq!(["frrx", "cron", "cron.service"].map(asked), [Some(0); 3]);
    }
}
