//! The end of a walk: counted first, then turned into what the hook returns.

use dataplane_common::{
    monitor::{bit, bits},
    reason::{Class, Reason},
    reject::Error,
    stats::Hook,
};

use crate::{monitor, observe, packet::Packet, reject};

/// A step's outcome: something to go on with, or the reason why the walk ends here.
pub type Walk<T> = Result<T, Reason>;

/// What BPF does with a packet that it carries itself; where to, the packet knows.
///
/// Without fields: of an enum that has some, the compiler leaves the unused ones undefined, and the verifier
/// refuses a program that moves undefined values about.
pub enum Action {
    /// Into the container behind a veth.
    Deliver,
    /// To a neighbour by an uplink.
    Forward,
    /// Back to the container that asked.
    AnswerArp,
}

/// The reasons for which a packet is dropped. Worked out by the compiler, not for each packet.
const DROPS: u64 = bits(Class::Drop);

/// Ends a walk; gives what the program returns.
#[inline(always)]
pub fn finish<P: Packet>(hook: Hook, packet: &P, walk: Walk<Action>) -> i32 {
    let mut reason = match &walk {
        Ok(Action::Deliver) => Reason::Delivered,
        Ok(Action::Forward) => Reason::Forwarded,
        Ok(Action::AnswerArp) => Reason::ArpAnswered,
        Err(reason) => *reason,
    };
    if walk.is_err() && Reason::TOLD & bit(packet.veil(reason as u32)) != 0 {
        if P::IS_FRAME {
            reason = Reason::TcTranslates;
        } else {
            reject::tell(packet, hook as u32, reason as u32, Error::PROHIBITED);
        }
    }
    observe::count(hook, reason, packet.len());
    match walk {
        Ok(Action::Deliver) => packet.deliver(),
        Ok(Action::Forward) => packet.forward(),
        Ok(Action::AnswerArp) => packet.send_back(),
        Err(_) => {
            let reason = packet.veil(reason as u32);
            // What XDP passes comes to tc, and is shown there.
            if is_dropped(reason) || !P::IS_FRAME {
                monitor::offer(hook, packet, reason);
            }
            end::<P>(reason)
        }
    }
}

/// The end of a packet that BPF does not carry, by the number of its reason.
#[inline(always)]
pub fn end<P: Packet>(reason: u32) -> i32 {
    if is_dropped(reason) { P::drop() } else { P::pass() }
}

#[inline(always)]
fn is_dropped(reason: u32) -> bool {
    DROPS & bit(reason) != 0
}
