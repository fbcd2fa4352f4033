//! What the programs cost the verifier: every start of the daemon and every `dataplane trace` pays it, and beyond
//! a million instructions the kernel refuses a program.

use anyhow::Result;
use dataplane::kernel::object::Program;
use dataplane_common::stats::Hook;
use tests::harness::skip::skip_without_root;

use crate::network::Network;

/// The most that each program may take, in the counting copy and in the recording one: about a sixth more than it
/// took on Linux 6.18. Other kernels prune more or less.
const BOUNDS: [(Program, [u32; 2]); 7] = [
    (Program::Walk(Hook::FromContainer), [14_500, 11_500]),
    (Program::Walk(Hook::FromUplink), [47_000, 27_000]),
    (Program::Waiting, [10, 10]),
    (Program::Translate(Hook::FromContainer), [24_500, 17_500]),
    (Program::Translate(Hook::FromUplink), [20_500, 14_000]),
    (Program::Open, [41_000, 36_000]),
    (Program::Sweep, [12_000, 12_000]),
];

#[test]
fn the_verifier_needs_no_more_than_it_did() -> Result<()> {
    if skip_without_root("the_verifier_needs_no_more_than_it_did") {
        return Ok(());
    }
    let mut network = Network::new()?;
    network.programs.enter(|runner| {
        let mut excess = Vec::new();
        for (program, bounds) in BOUNDS {
            let verified = runner.verified(program)?;
            println!("{:<25} {verified:?}, at most {bounds:?}", program.name());
            for (verified, bound) in verified.into_iter().zip(bounds) {
                if verified.is_some_and(|verified| verified > bound) {
                    excess.push((program.name(), verified, bound));
                }
            }
        }
        assert_eq!(excess, [], "see what made them grow before raising the bounds");
        Ok(())
    })
}
