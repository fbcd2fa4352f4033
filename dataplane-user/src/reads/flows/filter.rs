//! Which flows are meant.

use clap::ValueEnum;
use dataplane_common::flow::{record::flags, state::State};
use ipnet::Ipv4Net;

use super::protocol_name;
use crate::kernel::flows::Snapshot;

/// What decided a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// A rule of translation, or that an answer goes back as its request came.
    Masquerade,
    /// A service.
    Service,
    /// Policy.
    Policy,
    /// The kernel's connection tracking.
    Kernel,
}

impl By {
    const ALL: [Self; 4] = [Self::Kernel, Self::Service, Self::Policy, Self::Masquerade];

    const fn flag(self) -> u8 {
        match self {
            Self::Masquerade => flags::BY_MASQUERADE,
            Self::Service => flags::BY_SERVICE,
            Self::Policy => flags::BY_POLICY,
            Self::Kernel => flags::BY_KERNEL,
        }
    }

    /// What decided that flow.
    pub(super) fn of(flow: &Snapshot) -> Option<Self> {
        Self::ALL.into_iter().find(|by| flow.flags & by.flag() != 0)
    }

    /// The name in outputs, and as an option.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Masquerade => "masquerade",
            Self::Service => "service",
            Self::Policy => "policy",
            Self::Kernel => "kernel",
        }
    }
}

/// Which flows are meant: those with all that is given.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// The original's source is among these.
    pub source: Option<Ipv4Net>,
    /// The original's destination is among these.
    pub destination: Option<Ipv4Net>,
    /// The protocol's name.
    pub protocol: Option<String>,
    /// The state.
    pub state: Option<State>,
    /// What decided it.
    pub by: Option<By>,
}

impl Filter {
    /// Whether the flow is meant.
    pub fn accepts(&self, flow: &Snapshot) -> bool {
        let original = &flow.original;
        self.source.is_none_or(|network| network.contains(&std::net::Ipv4Addr::from(original.source)))
            && self
                .destination
                .is_none_or(|network| network.contains(&std::net::Ipv4Addr::from(original.destination)))
            && self.protocol.as_deref().is_none_or(|name| name == protocol_name(original.protocol))
            && self.state.is_none_or(|state| state == flow.life.state())
            && self.by.is_none_or(|by| flow.flags & by.flag() != 0)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use dataplane_common::flow::{
        record::{Binding, Life},
        state::Progress,
        tuple::{Tuple, protocol},
    };

    use super::*;

    #[test]
    fn a_flow_must_have_all_that_is_given() {
        let original = Tuple {
            source: Ipv4Addr::new(172, 19, 35, 2).into(),
            destination: Ipv4Addr::new(203, 0, 113, 5).into(),
            source_port: 40_000,
            destination_port: 443,
            protocol: protocol::TCP,
        };
        let flow = Snapshot {
            original,
            reply: original.reversed(),
            flags: flags::BY_MASQUERADE,
            life: Life::from_bits(0).next(Progress::first(State::TcpOpening), 9),
            binding: Binding::new(0, 0, 0),
            opened: 1,
            bytes: [0; 2],
            packets: [0; 2],
        };
        let network = |text: &str| Some(text.parse().unwrap());
        let any = Filter::default();
        let accepted = [
            any.clone(),
            Filter { source: network("172.19.35.2/32"), ..any.clone() },
            Filter {
                destination: network("203.0.113.0/24"),
                protocol: Some("tcp".to_owned()),
                ..any.clone()
            },
            Filter { state: Some(State::TcpOpening), by: Some(By::Masquerade), ..any.clone() },
        ];
        assert!(accepted.iter().all(|filter| filter.accepts(&flow)));
        let refused = [
            Filter { source: network("203.0.113.5/32"), ..any.clone() },
            Filter {
                destination: network("172.19.35.2/32"),
                source: network("172.19.0.0/16"),
                ..any.clone()
            },
            Filter { protocol: Some("udp".to_owned()), ..any.clone() },
            Filter { state: Some(State::TcpEstablished), ..any.clone() },
            Filter { by: Some(By::Kernel), ..any },
        ];
        assert!(refused.iter().all(|filter| !filter.accepts(&flow)));
        assert_eq!(By::of(&flow), Some(By::Masquerade));
    }
}
