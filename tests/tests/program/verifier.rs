//! What the programs cost the verifier: every start of the daemon and every `dataplane trace` pays it, and beyond
//! a million instructions the kernel refuses a program.

use anyhow::Result;
use dataplane::kernel::object::Program;
use dataplane_common::stats::Hook;
use tests::harness::skip::skip_without_root;

use crate::network::Network;

/// The most that each program may take, in the counting copy and in the recording one: about a sixth more than it
/// took on Linux 6.18. Other kernels prune more or less.
const BOUNDS: [(Program, [u32; 2]); 8] = [
    (Program::Walk(Hook::FromContainer), [17_500, 13_500]),
    (Program::Walk(Hook::FromUplink), [66_500, 27_500]),
    (Program::Walk(Hook::XdpFromUplink), [38_500, 32_000]),
    (Program::Waiting, [10, 10]),
    (Program::TranslateFromContainer, [38_500, 17_500]),
    (Program::TranslateFromUplink, [31_500, 14_000]),
    (Program::Open, [49_000, 36_500]),
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
