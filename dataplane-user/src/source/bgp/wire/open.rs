//! OPEN and its capabilities (RFC 4271 section 4.2, RFC 5492).

use std::net::Ipv4Addr;

use rustbgpd_wire::{Afi, Capability, GracefulRestartFamily, OpenMessage, Safi};

/// Stands for a number of four octets where there is room for two (RFC 6793).
const AS_TRANS: u16 = 23_456;

/// What a speaker says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The autonomous system, from the four-octet capability where there is one.
    pub asn: u32,
    /// The hold time that it proposes, in seconds.
    pub hold_seconds: u16,
    /// The BGP identifier.
    pub identifier: Ipv4Addr,
    /// It has the four-octet capability.
    pub four_octets: bool,
    /// It carries IPv4 unicast; without any capability of this kind it does (RFC 4760 section 8).
    pub ipv4: bool,
    /// It carries IPv6 unicast.
    pub ipv6: bool,
    /// It understands ROUTE-REFRESH (RFC 2918).
    pub route_refresh: bool,
    /// It restarts gracefully.
    pub graceful_restart: Option<GracefulRestart>,
}

/// What a speaker says of its restarts (RFC 4724 section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GracefulRestart {
    /// R: it has just restarted.
    pub restarting: bool,
    /// How long it takes to come back, in seconds.
    pub seconds: u16,
    /// For IPv4 unicast, F: whether it kept forwarding. `None` where it asks for nothing to be kept.
    pub ipv4: Option<bool>,
}

impl From<OpenMessage> for Open {
    fn from(open: OpenMessage) -> Self {
        let mut this = Self {
            asn: open.my_as.into(),
            hold_seconds: open.hold_time,
            identifier: open.bgp_identifier,
            four_octets: false,
            ipv4: false,
            ipv6: false,
            route_refresh: false,
            graceful_restart: None,
        };
        let mut families = false;
        for capability in &open.capabilities {
            match capability {
                Capability::MultiProtocol { afi, safi: Safi::Unicast } => {
                    families = true;
                    this.ipv4 |= *afi == Afi::Ipv4;
                    this.ipv6 |= *afi == Afi::Ipv6;
                }
                Capability::MultiProtocol { .. } => families = true,
                Capability::FourOctetAs { asn } => (this.asn, this.four_octets) = (*asn, true),
                Capability::RouteRefresh => this.route_refresh = true,
                // Of several the last one counts (RFC 4724 section 3).
                Capability::GracefulRestart { restart_state, restart_time, families, .. } => {
                    let family = |f: &&GracefulRestartFamily| (f.afi, f.safi) == (Afi::Ipv4, Safi::Unicast);
                    this.graceful_restart = Some(GracefulRestart {
                        restarting: *restart_state,
                        seconds: *restart_time,
                        ipv4: families.iter().find(family).map(|family| family.forwarding_preserved),
                    });
                }
                _ => {}
            }
        }
        this.ipv4 |= !families;
        this
    }
}

impl From<&Open> for OpenMessage {
    fn from(open: &Open) -> Self {
        let mut capabilities = Vec::new();
        for (carried, afi) in [(open.ipv4, Afi::Ipv4), (open.ipv6, Afi::Ipv6)] {
            if carried {
                capabilities.push(Capability::MultiProtocol { afi, safi: Safi::Unicast });
            }
        }
        if open.route_refresh {
            capabilities.push(Capability::RouteRefresh);
        }
        if let Some(restart) = open.graceful_restart {
            let family = |forwarding_preserved| GracefulRestartFamily {
                afi: Afi::Ipv4,
                safi: Safi::Unicast,
                forwarding_preserved,
            };
            capabilities.push(Capability::GracefulRestart {
                restart_state: restart.restarting,
                notification: false,
                restart_time: restart.seconds,
                families: restart.ipv4.map(family).into_iter().collect(),
            });
        }
        if open.four_octets {
            capabilities.push(Capability::FourOctetAs { asn: open.asn });
        }
        Self {
            version: 4,
            my_as: u16::try_from(open.asn).unwrap_or(AS_TRANS),
            hold_time: open.hold_seconds,
            bgp_identifier: open.identifier,
            capabilities,
        }
    }
}
