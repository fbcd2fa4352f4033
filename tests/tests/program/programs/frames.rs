//! The program at XDP, which runs on frames.

use anyhow::{Context as _, Result};
use aya::{TestRun as _, TestRunOptions, programs::XdpMode};
use dataplane::kernel::object;
use dataplane_common::uplink::Uplink;

use super::{Context, Packet, Ran, Runner, Traced, context};

impl Runner {
    /// Attaches the counting copy of the program at XDP, without which a frame has no receive queue, and fills the table
    /// of uplinks.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn serve_at_xdp(&mut self, rows: &[Uplink]) -> Result<()> {
        let program = object::xdp(&mut self.counting)?;
        for row in rows {
            program.attach_to_if_index(row.ifindex, XdpMode::Driver).context("cannot attach at XDP")?;
        }
        self.set_uplinks(rows)
    }

    /// Fills the table of uplinks.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn set_uplinks(&mut self, rows: &[Uplink]) -> Result<()> {
        self.at_xdp = rows.iter().map(|row| row.ifindex).collect();
        self.uplinks.set(rows)
    }

    /// Whether that uplink is served at XDP.
    pub fn serves_at_xdp(&self, ifindex: u32) -> bool {
        self.at_xdp.contains(&ifindex)
    }

    /// Runs the recording copy of the program at XDP, on a packet for the one at tc behind it.
    ///
    /// # Errors
    /// As [`Self::trace`].
    pub fn trace_at_xdp(&mut self, packet: &Packet) -> Result<Traced> {
        self.record(|runner| {
            let frame = &packet.frame;
            runner.buffer.resize(frame.len() + 64, 0);
            let result = object::xdp(&mut runner.recording)?
                .test_run(TestRunOptions {
                    data_in: Some(frame),
                    data_out: Some(&mut runner.buffer),
                    ctx_in: Some(&context::at_xdp(packet.ifindex, frame.len())),
                    ..TestRunOptions::new()
                })
                .with_context(|| format!("BPF_PROG_TEST_RUN at XDP on {} bytes", frame.len()))?;
            let bytes = runner.buffer[..result.data_size_out as usize].to_vec();
            Ok(Ran { action: result.return_value as i32, bytes, context: Context::default() })
        })
    }
}
