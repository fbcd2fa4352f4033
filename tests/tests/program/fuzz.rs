//! A million packets, well-formed, odd and damaged, through both programs and through the model.
//!
//! `DATAPLANE_FUZZ_SEED` and `DATAPLANE_FUZZ_PACKETS` change what is run; a failure names the seed.

#[path = "fuzz/bytes.rs"]
mod bytes;
#[path = "fuzz/generate.rs"]
mod generate;
#[path = "fuzz/random.rs"]
mod random;
#[path = "fuzz/routes.rs"]
mod routes;
#[path = "fuzz/translation.rs"]
mod translation;

use std::{collections::BTreeMap, env, str::FromStr, time::Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use dataplane_common::stats::{Counter, Hook};
use tests::harness::skip::skip_without_root;

use self::{generate::Generator, random::Random, routes::Churn};
use crate::{
    at_xdp,
    case::{hex, leads_to},
    coverage,
    model::{Model, Verdict},
    network::Network,
    programs::{Counts, Packet, Ran, Runner},
};

const SEED: u64 = 0x000d_a7a9_1a4e;
const PACKETS: usize = 1_000_000;

/// Packets between two changes of the routes, after which the counters are compared.
const BATCH: usize = 1000;

/// From so many packets on, every way in which a walk can end must have come up.
const ENOUGH: usize = 200_000;

#[test]
fn programs_and_model_agree_on_a_million_packets() -> Result<()> {
    if skip_without_root("programs_and_model_agree_on_a_million_packets") {
        return Ok(());
    }
    let seed = variable("DATAPLANE_FUZZ_SEED", SEED)?;
    let packets = variable("DATAPLANE_FUZZ_PACKETS", PACKETS)?;
    println!("DATAPLANE_FUZZ_SEED={seed} DATAPLANE_FUZZ_PACKETS={packets}");
    let mut network = Network::new()?;
    network.serve_at_xdp()?;
    let generator = Generator::new(&network, Random::new(seed));
    let churn = Churn::new(&network, Random::new(!seed));
    let Network { programs, model, .. } = &mut network;
    let begin = Instant::now();
    let ends = programs
        .enter(|runner| Fuzz { runner, model, generator, churn, ends: BTreeMap::new() }.run(packets))
        .with_context(|| format!("with DATAPLANE_FUZZ_SEED={seed}"))?;
    println!("{packets} packets in {:.1} s ended so:", begin.elapsed().as_secs_f64());
    for (hook, reason) in
        coverage::all().filter(|(hook, reason)| coverage::can_end_untranslated(*hook, *reason))
    {
        let count = ends.get(&(hook, reason as u32)).map_or(0, |counter| counter.packets);
        println!("{:<15} {:<15} {count:>8}", hook.name(), reason.name());
        ensure!(count > 0 || packets < ENOUGH, "no packet ended so: the packets are not varied enough");
    }
    Ok(())
}

/// Packets with rules of translation set: fewer, since each is counted by itself.
const TRANSLATED: usize = 60_000;

#[test]
fn a_rule_that_applies_is_never_passed_over() -> Result<()> {
    if skip_without_root("a_rule_that_applies_is_never_passed_over") {
        return Ok(());
    }
    let seed = variable("DATAPLANE_FUZZ_SEED", SEED)?;
    let packets = variable("DATAPLANE_FUZZ_PACKETS", TRANSLATED)?;
    println!("DATAPLANE_FUZZ_SEED={seed} DATAPLANE_FUZZ_PACKETS={packets}");
    let mut network = Network::for_fuzzed_translation()?;
    network.serve_at_xdp()?;
    let parts = (Generator::new(&network, Random::new(seed)), Churn::new(&network, Random::new(!seed)));
    let uplinks = [network.eth0, network.eth1];
    let rules = network.rules();
    let Network { programs, model, .. } = &mut network;
    let begin = Instant::now();
    let ends = programs
        .enter(|runner| {
            translation::Fuzz::new(uplinks, rules, runner, model, parts, seed).run(packets, BATCH)
        })
        .with_context(|| format!("with DATAPLANE_FUZZ_SEED={seed}"))?;
    println!("{packets} packets in {:.1} s ended so:", begin.elapsed().as_secs_f64());
    for (hook, reason) in coverage::all() {
        let count = ends.by_reason.get(&(hook, reason as u32)).copied().unwrap_or(0);
        println!("{:<15} {:<16} {count:>8}", hook.name(), reason.name());
    }
    println!("{} translated, {} restored", ends.translated, ends.restored);
    let enough = packets as u64 / 50;
    ensure!(packets < ENOUGH_TRANSLATED || ends.translated > enough && ends.restored > enough, "too few");
    Ok(())
}

/// From so many packets on, a good part of them must be of translations.
const ENOUGH_TRANSLATED: usize = 20_000;

fn variable<T: FromStr>(name: &str, default: T) -> Result<T> {
    match env::var(name) {
        Ok(text) => text.parse().map_err(|_| anyhow!("{name} is no number: {text}")),
        Err(_) => Ok(default),
    }
}

/// Packets and bytes by hook and number of the reason.
type Ends = BTreeMap<(Hook, u32), Counter>;

struct Fuzz<'a> {
    runner: &'a mut Runner,
    model: &'a mut Model,
    generator: Generator,
    churn: Churn,
    ends: Ends,
}

impl Fuzz<'_> {
    fn run(mut self, packets: usize) -> Result<Ends> {
        let mut done = 0;
        while done < packets {
            self.churn.change(self.runner, self.model).context("cannot change the routes")?;
            self.generator.follow(self.model);
            let size = BATCH.min(packets - done);
            let packets = (0..size).map(|_| self.generator.packet());
            let batch: Vec<(Packet, Verdict)> =
                packets.map(|packet| (packet.clone(), self.model.verdict(&packet))).collect();
            self.run_batch(&batch).with_context(|| format!("in the batch from packet {done} on"))?;
            done += size;
        }
        Ok(self.ends)
    }

    fn run_batch(&mut self, batch: &[(Packet, Verdict)]) -> Result<()> {
        let mut expected = totals(&self.runner.counts()?);
        for (packet, verdict) in batch {
            let ran = self.runner.run(packet).with_context(|| describe(packet))?;
            if differs(&ran, verdict) {
                bail!("{}\n  expected {verdict:?}\n  found {ran:?}", describe(packet));
            }
            for ends in [&mut expected, &mut self.ends] {
                let counter = ends.entry((packet.hook, verdict.reason as u32)).or_default();
                counter.packets += 1;
                counter.bytes += verdict.bytes.len() as u64;
            }
        }
        let counted = self.runner.counts()?;
        if totals(&counted) != expected {
            bail!("{}", self.find_miscounted(batch)?);
        }
        for (packet, verdict) in batch {
            self.check_trace(packet, verdict)?;
        }
        ensure!(self.runner.counts()? == counted, "tracing counted");
        Ok(())
    }

    /// The recording copy must tell of each packet what the counting one did.
    fn check_trace(&mut self, packet: &Packet, verdict: &Verdict) -> Result<()> {
        let traced = self.runner.trace(packet).with_context(|| describe(packet))?;
        let same = !differs(&traced.ran, verdict)
            && traced.reason == verdict.reason
            && leads_to(&traced, packet) == verdict.to;
        ensure!(same, "{}\n  expected {verdict:?}\n  traced {traced:?}", describe(packet));
        let at_xdp = at_xdp::differences(self.runner, packet, &traced)?;
        ensure!(at_xdp.is_empty(), "{}\n  {at_xdp:?}", describe(packet));
        Ok(())
    }

    /// Runs a batch again, one packet at a time, and tells of the first that is not counted as it should be.
    fn find_miscounted(&mut self, batch: &[(Packet, Verdict)]) -> Result<String> {
        for (packet, Verdict { reason, bytes, .. }) in batch {
            let moved = self.runner.run_counted(packet)?.moved;
            if moved != [(packet.hook, *reason, Counter { packets: 1, bytes: bytes.len() as u64 })] {
                return Ok(format!("{}\n  expected {reason:?}\n  counted {moved:?}", describe(packet)));
            }
        }
        Ok("the batch was not counted as expected, yet each packet by itself is".to_owned())
    }
}

fn totals(counts: &Counts) -> Ends {
    counts.iter().map(|(hook, reason, counter)| ((*hook, *reason as u32), *counter)).collect()
}

fn differs(ran: &Ran, verdict: &Verdict) -> bool {
    ran.action != verdict.action || ran.bytes != verdict.bytes
}

fn describe(packet: &Packet) -> String {
    let Packet { hook, ifindex, frame, gso_size } = packet;
    format!("{} on interface {ifindex}, gso_size {gso_size}: {}", hook.name(), hex(frame))
}
