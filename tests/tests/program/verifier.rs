//! What the programs cost the verifier: every start of the daemon and every `dataplane trace` pays it, and beyond
//! a million instructions the kernel refuses a program.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use dataplane::kernel::object::Program;
use tests::harness::{kernel, report::report, skip::skip_without_root};

use crate::network::Network;

/// What each program took when it was last accepted. Kernels prune more or less, so each has lines of its own.
const RECORDED: &str = include_str!("../../verified.txt");

/// By kernel and program, of the counting copy and the recording one.
type Recorded = BTreeMap<((u32, u32), String), [u32; 2]>;

#[test]
fn the_verifier_needs_no_more_than_it_did() -> Result<()> {
    if skip_without_root("the_verifier_needs_no_more_than_it_did") {
        return Ok(());
    }
    let recorded = parse(RECORDED)?;
    let kernel = kernel::running()?;
    let mut network = Network::new()?;
    network.programs.enter(|runner| {
        let mut excess = Vec::new();
        for &program in Program::ALL {
            // Linux tells it since 5.16.
            let [Some(counting), Some(recording)] = runner.verified(program)? else { continue };
            let bounds = bounds(&recorded, kernel, program.name());
            let (name, (major, minor)) = (program.name(), kernel);
            report("verified", &format!("{major}.{minor} {name} {counting} {recording}"));
            if bounds.is_none_or(|[most, most_recording]| counting > most || recording > most_recording) {
                excess.push(format!("{name}: {counting} and {recording}, at most {bounds:?}"));
            }
        }
        assert_eq!(
            excess,
            [""; 0],
            "see what made them grow; to accept it, put the lines `verified: …` above into tests/verified.txt, or for a \
             kernel of the matrix run `cargo xtask vm --kernel VERSION --record`"
        );
        Ok(())
    })
}

/// The most that a program may take on a kernel: a sixth more than what was recorded there, or on a kernel without
/// lines of its own, anywhere.
fn bounds(recorded: &Recorded, kernel: (u32, u32), program: &str) -> Option<[u32; 2]> {
    let known = recorded.keys().any(|(other, _)| *other == kernel);
    let of_program =
        recorded.iter().filter(|((other, name), _)| name == program && (!known || *other == kernel));
    let most = of_program.map(|(_, counts)| *counts).reduce(|[a, b], [c, d]| [a.max(c), b.max(d)])?;
    Some(most.map(|count| count + count / 6))
}

/// Lines `KERNEL PROGRAM COUNTING RECORDING`; those that begin with `#` say something to people.
fn parse(text: &str) -> Result<Recorded> {
    let mut recorded = Recorded::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let entry = || {
            let mut words = line.split(' ');
            let (major, minor) = words.next()?.split_once('.')?;
            let kernel = (major.parse().ok()?, minor.parse().ok()?);
            let program = words.next()?.to_owned();
            let counts = [words.next()?.parse().ok()?, words.next()?.parse().ok()?];
            words.next().is_none().then_some(((kernel, program), counts))
        };
        let (key, counts) = entry().with_context(|| format!("no line of tests/verified.txt: {line:?}"))?;
        recorded.insert(key, counts);
    }
    Ok(recorded)
}

#[test]
fn a_kernel_s_own_lines_bound_it() -> Result<()> {
    let recorded = parse("# x\n6.1 a 600 60\n6.12 a 60 600\n6.12 b 6 6\n")?;
    assert_eq!(bounds(&recorded, (6, 1), "a"), Some([700, 70]));
    assert_eq!(bounds(&recorded, (6, 18), "a"), Some([700, 700]));
    assert_eq!(bounds(&recorded, (6, 1), "b"), None);
    for wrong in ["6 a 1 2", "6.1 a 1", "6.1 a 1 2 3", ""] {
        assert!(parse(&format!("{wrong}\n")).is_err(), "{wrong:?}");
    }
    Ok(())
}
