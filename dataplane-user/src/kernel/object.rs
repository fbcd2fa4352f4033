//! The BPF object: built with this crate, embedded in it, loaded from it.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use aya::{Ebpf, EbpfLoader, programs::SchedClassifier};
use dataplane_common::{
    names::{GLOBAL_TRACE, MAP_ENDPOINTS, PINNED_MAPS},
    stats::Hook,
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/dataplane-ebpf.o"));

/// What a load is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To be attached: counts, and records no steps.
    Attach,
    /// To be run by `BPF_PROG_TEST_RUN`: records the steps of each walk, and counts nothing.
    Trace,
}

/// The name of a hook's program in the object.
pub const fn program_name(hook: Hook) -> &'static str {
    match hook {
        Hook::FromContainer => dataplane_common::names::PROGRAM_FROM_CONTAINER,
        Hook::FromUplink => dataplane_common::names::PROGRAM_FROM_UPLINK,
    }
}

/// Creates the maps that are not pinned yet in `maps`, opens those that are, and loads every program.
///
/// # Errors
///
/// Where the kernel refuses a map or a program; a program's error carries the verifier's log.
pub fn load(maps: &Path, max_endpoints: u32, purpose: Purpose) -> Result<Ebpf> {
    let trace = u8::from(purpose == Purpose::Trace);
    let mut loader = EbpfLoader::new();
    loader.override_global(GLOBAL_TRACE, &trace, true).map_max_entries(MAP_ENDPOINTS, max_endpoints);
    for name in PINNED_MAPS {
        loader.map_pin_path(name, maps.join(name));
    }
    let mut object = loader.load(OBJECT).context(
        "cannot create the BPF maps (needs CAP_BPF and CAP_NET_ADMIN, or root; kernel 6.1 or newer with BTF)",
    )?;
    load_programs(&mut object)?;
    Ok(object)
}

/// The program of a hook.
///
/// # Errors
///
/// Where the object has no such program: it was not built from this source tree.
pub fn classifier(object: &mut Ebpf, hook: Hook) -> Result<&mut SchedClassifier> {
    let name = program_name(hook);
    let program = object.program_mut(name).ok_or_else(|| anyhow!("no program {name} in the BPF object"))?;
    Ok(program.try_into()?)
}

/// Whether this kernel takes the programs and maps: everything is loaded, and let go again.
///
/// # Errors
///
/// As [`load`].
pub fn check() -> Result<()> {
    let mut object = EbpfLoader::new().load(OBJECT).context("cannot create the BPF maps")?;
    load_programs(&mut object)
}

fn load_programs(object: &mut Ebpf) -> Result<()> {
    for &hook in Hook::ALL {
        classifier(object, hook)?
            .load()
            .with_context(|| format!("the kernel refused the program {}", program_name(hook)))?;
    }
    Ok(())
}
