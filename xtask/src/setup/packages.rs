//! The table of what is needed, by Debian's names. A feature that needs another program adds a row.

use std::fmt;
use std::path::Path;

use crate::process;

/// What a part is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// To compile, link and check.
    Build,
    /// To compile `bpf-linker`, on a machine that lacks it.
    Linker,
    /// To run the tests.
    Test,
    /// To run them against other implementations besides; virtual machines need none of that.
    Interop,
    /// To run the demonstration.
    Demo,
    /// To measure.
    Bench,
    /// To boot other kernels.
    Vm,
    /// To make the Debian package: when that is asked for.
    Package,
}

impl Need {
    /// What `cargo xtask setup` prepares for; [`Need::Linker`] follows from what it finds, and [`Need::Package`] is for
    /// `cargo xtask package` alone.
    pub(crate) const EVERY: [Self; 6] =
        [Self::Build, Self::Test, Self::Interop, Self::Demo, Self::Bench, Self::Vm];
}

/// How to tell that a part is there.
#[derive(Debug)]
pub(crate) enum Proof {
    /// A program on PATH.
    Program(&'static str),
    /// A file at this path.
    File(&'static str),
}

/// One Debian package.
#[derive(Debug)]
pub(crate) struct Package {
    /// Debian's name.
    pub(crate) name: &'static str,
    pub(crate) proof: Proof,
    pub(crate) needs: &'static [Need],
    /// What it does here.
    pub(crate) purpose: &'static str,
    /// The archive's component that holds it where `main` does not.
    pub(crate) component: Option<&'static str>,
    /// What it would have the system run from then on, and nobody here needs.
    pub(crate) service: Option<&'static str>,
}

impl Package {
    const fn new(name: &'static str, proof: Proof, needs: &'static [Need], purpose: &'static str) -> Self {
        Self { name, proof, needs, purpose, component: None, service: None }
    }

    const fn in_component(self, component: &'static str) -> Self {
        Self { component: Some(component), ..self }
    }

    const fn with_service(self, service: &'static str) -> Self {
        Self { service: Some(service), ..self }
    }

    /// Whether the machine has it, by whatever means it came.
    pub(crate) fn is_there(&self) -> bool {
        match self.proof {
            Proof::Program(program) => process::find(program).is_some(),
            Proof::File(path) => Path::new(path).exists(),
        }
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Program(program) => write!(f, "program {program}"),
            Self::File(path) => write!(f, "file {path}"),
        }
    }
}

/// The rows that serve any of `needs`, each once.
pub(crate) fn needed(needs: &[Need]) -> impl Iterator<Item = &'static Package> {
    PACKAGES.iter().filter(|package| package.needs.iter().any(|need| needs.contains(need)))
}

use Need::{Bench, Build, Demo, Interop, Linker, Package as Packaging, Test, Vm};
use Proof::{File, Program};

/// The LLVM in [`PACKAGES`] is that of the pinned rustc (`rustc -vV`): a linker with an older one cannot read
/// the compiler's output.
const PACKAGES: &[Package] = &[
    Package::new("gcc", Program("cc"), &[Build], "links the host's programs"),
    Package::new("git", Program("git"), &[Build], "lists the files that the house rules are held against"),
    Package::new("llvm-22-dev", File("/usr/lib/llvm-22/bin/llvm-config"), &[Linker], "LLVM for bpf-linker"),
    Package::new("libpolly-22-dev", File("/usr/lib/llvm-22/lib/libPolly.a"), &[Linker], "part of LLVM"),
    Package::new("g++", Program("c++"), &[Linker], "links bpf-linker with LLVM"),
    Package::new("libzstd-dev", File("/usr/include/zstd.h"), &[Linker], "compression in LLVM"),
    Package::new("zlib1g-dev", File("/usr/include/zlib.h"), &[Linker], "compression in LLVM"),
    Package::new("iproute2", Program("ip"), &[Test, Demo, Bench], "namespaces, links and routes"),
    Package::new("bpftool", Program("bpftool"), &[Test, Demo], "what is attached to the interfaces"),
    Package::new("util-linux", Program("nsenter"), &[Test, Demo, Bench], "enters a namespace by itself"),
    Package::new(
        "iptables",
        Program("iptables"),
        &[Test, Demo, Bench],
        "Calico's rules, to coexist with and to compare with",
    ),
    Package::new("nftables", Program("nft"), &[Test, Bench], "the same as nftables rules"),
    Package::new("conntrack", Program("conntrack"), &[Test, Bench], "the kernel's own view of connections"),
    Package::new("tcpdump", Program("tcpdump"), &[Test, Demo], "shows what is on a link"),
    Package::new("iperf3", Program("iperf3"), &[Test, Bench], "TCP and UDP streams"),
    Package::new("iputils-ping", Program("ping"), &[Test, Demo], "echo requests"),
    Package::new("traceroute", Program("traceroute"), &[Test, Demo], "the hops on a path"),
    Package::new("ethtool", Program("ethtool"), &[Test, Bench], "offloads of veth pairs"),
    Package::new("strace", Program("strace"), &[Test], "kills the daemon at a system call of its own"),
    Package::new("curl", Program("curl"), &[Test, Demo], "downloads between containers"),
    Package::new("python3", Program("python3"), &[Test, Demo], "serves what is downloaded"),
    Package::new(
        "fonts-dejavu-core",
        File("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf"),
        &[Bench],
        "the words on the report's pictures",
    ),
    Package::new("bird2", Program("bird"), &[Interop, Bench], "the routing daemon of Calico, to work with")
        .with_service("bird"),
    Package::new("frr", File("/usr/lib/frr/bgpd"), &[Interop], "another routing daemon to work with")
        .with_service("frr"),
    Package::new("gobgpd", Program("gobgpd"), &[Interop], "another one, of kube-router")
        .with_service("gobgpd"),
    Package::new("dpkg", Program("dpkg-deb"), &[Packaging], "makes and installs packages"),
    Package::new("dpkg-dev", Program("dpkg-shlibdeps"), &[Packaging], "which libraries the program needs"),
    Package::new("netperf", Program("netperf"), &[Bench], "request/response and connection rates")
        .with_service("netperf")
        .in_component("non-free"),
    Package::new("qemu-system-x86", Program("qemu-system-x86_64"), &[Vm], "boots other kernels"),
    Package::new("busybox-static", Program("busybox"), &[Vm], "what a machine needs besides, in one file"),
    Package::new("mmdebstrap", Program("mmdebstrap"), &[Vm], "makes a fresh Debian, to try the package on"),
    Package::new("kmod", Program("depmod"), &[Vm], "finds and loads kernels' modules"),
    Package::new("binutils", Program("strip"), &[Vm], "makes the tests small enough for a machine's memory"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn names(needs: &[Need]) -> Vec<&'static str> {
        needed(needs).map(|package| package.name).collect()
    }

    #[test]
    fn every_row_is_named_once_and_serves_something() {
        for (index, package) in PACKAGES.iter().enumerate() {
            assert!(!package.needs.is_empty(), "{} serves nothing", package.name);
            assert!(!package.purpose.is_empty(), "{} says nothing", package.name);
            let later = &PACKAGES[index + 1..];
            assert!(later.iter().all(|other| other.name != package.name), "{} is there twice", package.name);
        }
    }

    #[test]
    fn a_package_that_serves_two_needs_is_given_once() {
        let both = names(&[Test, Demo]);
        assert_eq!(both.iter().filter(|name| **name == "iproute2").count(), 1);
    }

    #[test]
    fn only_the_benchmarks_reach_outside_main() {
        assert!(names(&[Build, Linker, Test, Demo]).iter().all(|name| *name != "netperf"));
        let outside = needed(&Need::EVERY).filter(|package| package.component.is_some());
        assert_eq!(outside.map(|package| package.name).collect::<Vec<_>>(), ["netperf"]);
    }

    #[test]
    fn llvm_is_needed_only_to_compile_the_linker() {
        assert!(names(&Need::EVERY).iter().all(|name| !name.contains("22")));
        assert!(names(&[Linker]).contains(&"llvm-22-dev"));
    }

    #[test]
    fn what_is_there_is_seen() {
        assert!(Package::new("dash", Program("sh"), &[Test], "a shell").is_there());
        assert!(!Package::new("none", File("/nonexistent/file"), &[Test], "nothing").is_there());
    }
}
