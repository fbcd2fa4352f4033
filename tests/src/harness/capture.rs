//! What passes an interface: `tcpdump` writes, the test reads.

use std::{fs, process::Command, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use super::{
    daemon::config::uplink_hook,
    netns::Namespace,
    packet::Frame,
    process::{Process, Stream, run},
    wait::eventually,
};

/// How long `tcpdump` may take to start and to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// The largest frame: an aggregate of 64 KiB.
const LARGEST: &str = "65549";

/// The buffer between kernel and tcpdump, in KiB: each packet takes as much of it as the largest would, which is the
/// MTU's where the interface makes no aggregates.
const BUFFER: &str = "65536";
/// The same where uplinks are tested at XDP: their ends poll by GRO, so that each place is as large as an aggregate.
const BUFFER_AT_XDP: &str = "262144";

/// A running capture; dropped, it ends.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    directory: TempDir,
}

impl Capture {
    /// Captures both directions of an interface; `filter` as in pcap-filter(7), empty for everything.
    /// Every packet that comes after this returns is seen, unless megabytes come at once.
    ///
    /// # Errors
    /// If `tcpdump` does not start: with what it says.
    pub fn start(namespace: &Namespace, interface: &str, filter: &str) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("dataplane-capture-").tempdir()?;
        let file = directory.path().join("capture.pcap").to_string_lossy().into_owned();
        // Each packet is written at once; without -Z, tcpdump would drop to a user who may not write there.
        let buffer = if uplink_hook().is_some() { BUFFER_AT_XDP } else { BUFFER };
        let options = ["-n", "-U", "--immediate-mode", "-Z", "root", "-s", LARGEST, "-B", buffer];
        let command = ["tcpdump"].into_iter().chain(options).chain(["-i", interface, "-w", &file, filter]);
        let process = namespace.spawn(command)?;
        process.wait_for_line(Stream::Stderr, |line| line.contains("listening on"), PATIENCE)?;
        Ok(Self { process, directory })
    }

    /// The packets so far, from their Ethernet headers on, in the order in which they passed.
    ///
    /// The last ones may still be on their way: [`Self::wait_for`] one, or [`Self::stop`] first.
    ///
    /// # Errors
    /// If the file is not a capture.
    pub fn packets(&self) -> Result<Vec<Vec<u8>>> {
        let file = self.directory.path().join("capture.pcap");
        parse_pcap(&fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?)
    }

    /// The packets so far, decoded.
    ///
    /// # Errors
    /// If one of them is cut short.
    pub fn frames(&self) -> Result<Vec<Frame>> {
        self.packets()?.iter().map(|packet| Frame::parse(packet)).collect()
    }

    /// Waits for a packet that the predicate accepts, from the first one on.
    ///
    /// # Errors
    /// If none comes in time: with what came instead.
    pub fn wait_for(&self, timeout: Duration, predicate: impl Fn(&Frame) -> bool) -> Result<Frame> {
        eventually(timeout, || {
            let frames = self.frames()?;
            match frames.iter().find(|frame| predicate(frame)) {
                Some(frame) => Ok(frame.clone()),
                None => bail!("no such packet among {} captured: {frames:?}", frames.len()),
            }
        })
    }

    /// Ends the capture and gives all its packets.
    ///
    /// # Errors
    /// If `tcpdump` does not end, or lost packets.
    pub fn stop(self) -> Result<Vec<Frame>> {
        self.process.signal(libc::SIGINT)?;
        let status = self.process.wait(PATIENCE)?;
        let said = self.process.output(Stream::Stderr);
        ensure!(status.success(), "tcpdump ended with {status}: {said}");
        ensure!(said.contains("\n0 packets dropped by kernel"), "the capture is not complete: {said}");
        self.frames()
    }

    /// Has `tcpdump` verify every checksum of the packets so far: of IP headers, TCP, UDP and ICMP.
    ///
    /// A checksum that the sender left to its device is wrong here: turn `tx` off where the packets leave.
    ///
    /// # Errors
    /// If one is wrong: what `tcpdump` says of it.
    pub fn verify_checksums(&self) -> Result<()> {
        let mut tcpdump = Command::new("tcpdump");
        tcpdump.args(["-n", "-vv", "-r"]).arg(self.directory.path().join("capture.pcap"));
        let said = run(tcpdump, "").ok()?;
        let wrong: Vec<&str> = said.lines().filter(|line| complains_of_a_checksum(line)).collect();
        ensure!(wrong.is_empty(), "wrong checksums:\n{}", wrong.join("\n"));
        Ok(())
    }
}

/// The words of print-ip.c, print-tcp.c, print-udp.c and print-icmp.c in tcpdump 4.99.
fn complains_of_a_checksum(line: &str) -> bool {
    ["bad cksum", "(incorrect", "bad udp cksum", "wrong icmp cksum"].iter().any(|words| line.contains(words))
}

/// Reads a capture file (draft-ietf-opsawg-pcap) as this machine writes it; a last packet that is not yet
/// complete is left out.
fn parse_pcap(file: &[u8]) -> Result<Vec<Vec<u8>>> {
    const HEADER: usize = 24;
    const RECORD_HEADER: usize = 16;
    if file.len() < HEADER {
        return Ok(Vec::new());
    }
    let word = |offset: usize| -> Result<usize> {
        Ok(u32::from_ne_bytes(file[offset..offset + 4].try_into()?) as usize)
    };
    let magic = word(0)?;
    ensure!([0xa1b2_c3d4, 0xa1b2_3c4d].contains(&magic), "{magic:#x} is not the magic number of a capture");
    ensure!(word(20)? & 0xffff == 1, "the capture's link type is {}, not Ethernet", word(20)?);
    let mut packets = Vec::new();
    let mut offset = HEADER;
    while offset + RECORD_HEADER <= file.len() {
        let (captured, original) = (word(offset + 8)?, word(offset + 12)?);
        ensure!(captured == original, "a packet of {original} bytes was cut to {captured}");
        let start = offset + RECORD_HEADER;
        let Some(packet) = file.get(start..start + captured) else { break };
        packets.push(packet.to_vec());
        offset = start + captured;
    }
    Ok(packets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    #[test]
    fn reads_complete_packets_only() -> Result<()> {
        let mut file = words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 262_144, 1]);
        file.extend(words(&[1, 2, 3, 3]));
        file.extend([7, 8, 9]);
        file.extend(words(&[1, 3, 4, 4]));
        file.extend([1, 2]);
        assert_eq!(parse_pcap(&file)?, [vec![7, 8, 9]]);
        Ok(())
    }

    #[test]
    fn complaints_are_known_from_praise() {
        for line in [
            "    10.0.0.1.1 > 10.0.0.2.2: [bad udp cksum 0x1234 -> 0x5678!] UDP, length 1",
            "    10.0.0.1.1 > 10.0.0.2.2: Flags [S], cksum 0x1234 (incorrect -> 0x5678), seq 1, length 0",
            "    10.0.0.1 > 10.0.0.2: ICMP echo request, id 1, seq 1, length 8 (wrong icmp cksum 1 (->2)!)",
            "IP (tos 0x0, ttl 64, id 1, offset 0, flags [DF], proto UDP (17), length 29, bad cksum 1 (->2)!)",
        ] {
            assert!(complains_of_a_checksum(line), "{line}");
        }
        assert!(!complains_of_a_checksum("    10.0.0.1.1 > 10.0.0.2.2: [udp sum ok] UDP, length 1"));
        assert!(!complains_of_a_checksum(
            "    10.0.0.1.1 > 10.0.0.2.2: Flags [S], cksum 0x1 (correct), seq 1"
        ));
    }

    #[test]
    fn refuses_what_is_no_ethernet_capture() -> Result<()> {
        assert!(parse_pcap(&[0x55; 24]).is_err());
        assert!(parse_pcap(&words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 262_144, 113])).is_err());
        assert_eq!(parse_pcap(&[])?, Vec::<Vec<u8>>::new());
        Ok(())
    }
}
