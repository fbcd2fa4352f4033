//! What a flow has seen so far, from the flags of both directions.

/// Which way a packet of a flow goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// As the first packet: from the container.
    Out = 0,
    /// Back to the container.
    In = 1,
}

macro_rules! states {
    ($($number:literal $variant:ident $rank:ident $seconds:literal $name:literal $text:literal,)+) => {
        /// State of a flow. The number indexes [`Settings::timeouts`](super::settings::Settings::timeouts).
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum State {
            $(#[doc = $text] $variant = $number,)+
        }

        impl State {
            /// Every state, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The state with that number; [`Self::Dead`] for a number that is none.
            #[inline(always)]
            pub const fn from_number(number: u8) -> Self {
                match number {
                    $($number => Self::$variant,)+
                    _ => Self::Dead,
                }
            }

            /// What may become of a flow in this state when another needs its place.
            #[inline(always)]
            pub const fn rank(self) -> Rank {
                match self { $(Self::$variant => Rank::$rank,)+ }
            }

            /// How long a flow in this state lives without a packet, in seconds, unless configured.
            pub const fn default_timeout(self) -> u32 {
                match self { $(Self::$variant => $seconds,)+ }
            }

            /// The name in outputs; with `timeout-` before and `-seconds` behind it, the key of the file.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

/// In which order flows give way in a table that is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// Is not there any more.
    Gone,
    /// Has ended, and is kept for late segments.
    Ended,
    /// Has had no answer, or no more than an answer.
    HalfOpen,
    /// Never gives way.
    Established,
}

// The timeouts are those of Linux's conntrack (net/netfilter/nf_conntrack_proto_{tcp,udp,icmp}.c) but for
// established TCP, where five days are cut to the 2 hours and 4 minutes of RFC 5382, REQ-5.
states! {
    0 Dead Gone 0 "dead" "No flow.",
    1 TcpOpening HalfOpen 120 "tcp-opening" "A SYN went out, or a segment of a connection that was there before.",
    2 TcpAnswered HalfOpen 60 "tcp-answered" "The other end answered the SYN.",
    3 TcpEstablished Established 7440 "tcp-established" "Both ends have agreed.",
    4 TcpClosing Established 120 "tcp-closing" "One end has sent its FIN.",
    5 TcpClosed Ended 120 "tcp-closed" "Both ends have sent their FIN.",
    6 TcpReset Ended 10 "tcp-reset" "An end has sent RST.",
    7 UdpUnreplied HalfOpen 30 "udp-unreplied" "A datagram went out.",
    8 UdpReplied Established 120 "udp-replied" "Datagrams went both ways.",
    9 IcmpEcho HalfOpen 30 "icmp-echo" "An echo request went out.",
}

/// Flags of the TCP header that matter.
pub mod flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Opens a connection.
    pub const SYN: u8 = 0x02;
    /// Ends a connection at once.
    pub const RST: u8 = 0x04;
    /// The acknowledgement number is valid.
    pub const ACK: u8 = 0x10;
}

/// Marks of a flow beside its state: who has sent FIN.
const FIN_FROM: [u8; 2] = [1, 2];
const FIN_BOTH: u8 = FIN_FROM[0] | FIN_FROM[1];

/// State and marks after a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The state.
    pub state: State,
    /// Which directions have sent FIN.
    pub marks: u8,
}

impl Progress {
    /// What a packet with these TCP flags makes of it; the flags of UDP and ICMP are 0.
    #[inline(always)]
    pub const fn after(self, direction: Direction, tcp_flags: u8) -> Self {
        match self.state {
            State::UdpUnreplied if matches!(direction, Direction::In) => {
                Self { state: State::UdpReplied, marks: 0 }
            }
            State::Dead | State::UdpUnreplied | State::UdpReplied | State::IcmpEcho => self,
            _ => self.after_segment(direction, tcp_flags),
        }
    }

    #[inline(always)]
    const fn after_segment(self, direction: Direction, tcp_flags: u8) -> Self {
        let outward = matches!(direction, Direction::Out);
        if tcp_flags & flags::RST != 0 {
            return Self { state: State::TcpReset, marks: self.marks };
        }
        if tcp_flags & flags::SYN != 0 {
            return match self.state {
                // The same ports once more, for a new connection (RFC 9293, section 3.6.1).
                State::TcpClosed | State::TcpReset if outward && tcp_flags & flags::ACK == 0 => {
                    Self { state: State::TcpOpening, marks: 0 }
                }
                // SYN-ACK, or the other's SYN of a simultaneous open.
                State::TcpOpening if !outward => Self { state: State::TcpAnswered, marks: self.marks },
                _ => self,
            };
        }
        if tcp_flags & flags::FIN != 0 {
            let marks = self.marks | FIN_FROM[direction as usize];
            let state = if marks == FIN_BOTH { State::TcpClosed } else { State::TcpClosing };
            return Self { state, marks };
        }
        let state = match self.state {
            // A connection that was there before the flow shows by the other end's segment.
            State::TcpOpening if !outward => State::TcpEstablished,
            State::TcpAnswered if outward => State::TcpEstablished,
            // The RST was not the end: whoever forged it must not end the flow (RFC 7857, section 2.2).
            State::TcpReset if outward && self.marks != FIN_BOTH => State::TcpEstablished,
            state => state,
        };
        Self { state, marks: self.marks }
    }
}

/// The state of a flow that begins with such a packet; `None` where such a packet begins none.
#[inline(always)]
pub const fn first(protocol: u8, tcp_flags: u8) -> Option<State> {
    match protocol {
        super::tuple::protocol::UDP => Some(State::UdpUnreplied),
        super::tuple::protocol::ICMP => Some(State::IcmpEcho),
        // An end without a beginning needs no answer. Other segments of an unknown connection are let out, so
        // that the other end's RST tells the container at once.
        super::tuple::protocol::TCP if tcp_flags & (flags::RST | flags::FIN) == 0 => Some(State::TcpOpening),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{flags::*, *};
    use crate::nat::tuple::protocol;

    const START: Progress = Progress { state: State::TcpOpening, marks: 0 };

    fn after(packets: &[(Direction, u8)]) -> State {
        packets.iter().fold(START, |progress, &(direction, flags)| progress.after(direction, flags)).state
    }

    use Direction::{In, Out};

    #[test]
    fn a_connection_opens_and_closes() {
        let mut packets = vec![(Out, SYN)];
        assert_eq!(after(&packets), State::TcpOpening);
        packets.push((In, SYN | ACK));
        assert_eq!(after(&packets), State::TcpAnswered);
        packets.push((Out, ACK));
        assert_eq!(after(&packets), State::TcpEstablished);
        packets.push((In, ACK));
        packets.push((Out, FIN | ACK));
        assert_eq!(after(&packets), State::TcpClosing);
        packets.push((In, ACK));
        assert_eq!(after(&packets), State::TcpClosing);
        packets.push((In, FIN | ACK));
        assert_eq!(after(&packets), State::TcpClosed);
        packets.push((Out, ACK));
        assert_eq!(after(&packets), State::TcpClosed);
    }

    #[test]
    fn both_may_open_at_once() {
        assert_eq!(after(&[(Out, SYN), (In, SYN)]), State::TcpAnswered);
        assert_eq!(
            after(&[(Out, SYN), (In, SYN), (Out, SYN | ACK), (In, ACK), (Out, ACK)]),
            State::TcpEstablished
        );
    }

    #[test]
    fn a_syn_does_not_open_without_an_answer_to_it() {
        assert_eq!(after(&[(Out, SYN), (Out, ACK), (Out, ACK)]), State::TcpOpening);
    }

    #[test]
    fn ports_of_a_closed_connection_are_used_again() {
        for end in [&[(Out, RST)][..], &[(Out, FIN | ACK), (In, FIN | ACK)]] {
            let packets = [&[(In, SYN | ACK), (Out, ACK)], end, &[(Out, SYN)]].concat();
            assert_eq!(after(&packets), State::TcpOpening, "{end:?}");
        }
    }

    #[test]
    fn a_forged_rst_does_not_end_a_connection_that_goes_on() {
        let packets = [(In, SYN | ACK), (Out, ACK), (In, RST)];
        assert_eq!(after(&packets), State::TcpReset);
        let packets = [&packets[..], &[(Out, ACK)]].concat();
        assert_eq!(after(&packets), State::TcpEstablished);
    }

    #[test]
    fn a_connection_that_was_there_before_is_taken_up() {
        assert_eq!(after(&[(Out, ACK), (In, ACK)]), State::TcpEstablished);
        assert_eq!(after(&[(Out, ACK), (In, RST)]), State::TcpReset);
    }

    #[test]
    fn datagrams_are_replied_to() {
        let start = Progress { state: State::UdpUnreplied, marks: 0 };
        assert_eq!(start.after(Out, 0).state, State::UdpUnreplied);
        assert_eq!(start.after(In, 0).state, State::UdpReplied);
        assert_eq!(start.after(In, 0).after(Out, 0).state, State::UdpReplied);
    }

    #[test]
    fn a_flow_begins_with_some_packets_and_not_with_others() {
        assert_eq!(first(protocol::TCP, SYN), Some(State::TcpOpening));
        assert_eq!(first(protocol::TCP, ACK), Some(State::TcpOpening));
        assert_eq!(first(protocol::TCP, RST), None);
        assert_eq!(first(protocol::TCP, FIN | ACK), None);
        assert_eq!(first(protocol::UDP, 0), Some(State::UdpUnreplied));
        assert_eq!(first(protocol::ICMP, 0), Some(State::IcmpEcho));
        assert_eq!(first(47, 0), None);
    }

    #[test]
    fn numbers_are_dense() {
        for (number, state) in State::ALL.iter().enumerate() {
            assert_eq!(*state as usize, number);
            assert_eq!(State::from_number(number as u8), *state);
        }
        assert_eq!(State::from_number(State::ALL.len() as u8), State::Dead);
    }
}
