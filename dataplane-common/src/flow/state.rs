//! What a flow has seen so far, from the flags of both directions.

/// Which way a packet of a flow goes.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// As the first packet.
    Original = 0,
    /// The other way.
    Reply = 1,
}

impl Direction {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Original, Self::Reply];

    /// The direction whose number's lowest bit that is.
    #[inline(always)]
    pub const fn from_bit(number: u64) -> Self {
        if number & 1 == 0 { Self::Original } else { Self::Reply }
    }
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
// established TCP, where five days are cut to the 2 hours and 4 minutes of RFC 5382, REQ-5, and for TCP after a RST, which
// has the four minutes of RFC 7857, section 2.2.
states! {
    0 Dead Gone 0 "dead" "No flow.",
    1 TcpOpening HalfOpen 120 "tcp-opening" "One end has spoken: by a SYN, or by a segment of a connection that was there before.",
    2 TcpAnswered HalfOpen 60 "tcp-answered" "The other end answered the SYN.",
    3 TcpEstablished Established 7440 "tcp-established" "Both ends have spoken.",
    4 TcpClosing Established 120 "tcp-closing" "One end of an established connection has sent its FIN.",
    5 TcpClosed Ended 120 "tcp-closed" "Both ends have sent their FIN.",
    6 TcpReset Ended 240 "tcp-reset" "An end of an established connection has sent RST.",
    7 UdpUnreplied HalfOpen 30 "udp-unreplied" "A datagram was sent.",
    8 UdpReplied Established 120 "udp-replied" "Datagrams went both ways.",
    9 IcmpEcho HalfOpen 30 "icmp-echo" "An echo request was sent.",
    10 TcpAborted Ended 10 "tcp-aborted" "An end has sent RST before the connection was established.",
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

/// Marks of a flow beside its state.
mod mark {
    /// A direction has sent FIN.
    #[inline(always)]
    pub const fn fin(direction: u8) -> u8 {
        1 << direction
    }

    pub const FIN_BOTH: u8 = fin(0) | fin(1);
    /// The connection was begun by the reply direction: the same ports once more, the other way round.
    pub const OPENED_BY_REPLY: u8 = 4;
    /// A SYN came in the middle of a connection from that direction: its end may have forgotten the connection and begin anew.
    /// What the other end answers decides.
    #[inline(always)]
    pub const fn syn(direction: u8) -> u8 {
        8 << direction
    }
}

/// What a segment says.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Data = 0,
    Syn = 1,
    SynAck = 2,
    Fin = 3,
    Rst = 4,
}

impl Kind {
    #[inline(always)]
    const fn of(tcp_flags: u8) -> Self {
        if tcp_flags & flags::RST != 0 {
            Self::Rst
        } else if tcp_flags & flags::SYN != 0 {
            if tcp_flags & flags::ACK != 0 { Self::SynAck } else { Self::Syn }
        } else if tcp_flags & flags::FIN != 0 {
            Self::Fin
        } else {
            Self::Data
        }
    }
}

/// An event is the kind of a segment, with this bit where the peer of the end that opened the connection sent it.
const FROM_PEER: usize = 8;

/// What becomes of a connection: `[state][event]`, RFC 9293 section 3.3.2 as someone between both ends sees it.
///
/// `FIN`s are kept as marks: where both have sent one, `TcpClosing` is `TcpClosed` (and so is `TcpReset` with data behind).
/// A SYN in the middle of a connection changes nothing before it is answered by a SYN-ACK ([`Progress::reopened`]).
const TRANSITIONS: [u8; 256] = {
    use State::*;
    /// A row: data, SYN, SYN-ACK, FIN, RST of the opener, then the same of the peer.
    const fn row(mut table: [u8; 256], state: State, next: [[State; 5]; 2]) -> [u8; 256] {
        let (mut side, mut kind) = (0, 0);
        while side < 2 {
            while kind < 5 {
                table[(state as usize) << 4 | side * FROM_PEER | kind] = next[side][kind] as u8;
                kind += 1;
            }
            (side, kind) = (side + 1, 0);
        }
        table
    }
    let table = [Dead as u8; 256];
    // Data of one end alone opens nothing; the other end's, without a SYN-ACK before, is a connection from before the flow.
    let table = row(table, TcpOpening, [
        [TcpOpening, TcpOpening, TcpOpening, TcpOpening, TcpAborted],
        [TcpEstablished, TcpAnswered, TcpAnswered, TcpClosing, TcpAborted],
    ]);
    let table = row(table, TcpAnswered, [
        [TcpEstablished, TcpAnswered, TcpAnswered, TcpClosing, TcpAborted],
        [TcpAnswered, TcpAnswered, TcpAnswered, TcpClosing, TcpAborted],
    ]);
    let table = row(table, TcpEstablished, [
        [TcpEstablished, TcpEstablished, TcpEstablished, TcpClosing, TcpReset],
        [TcpEstablished, TcpEstablished, TcpEstablished, TcpClosing, TcpReset],
    ]);
    let table = row(table, TcpClosing, [
        [TcpClosing, TcpClosing, TcpClosing, TcpClosing, TcpReset],
        [TcpClosing, TcpClosing, TcpClosing, TcpClosing, TcpReset],
    ]);
    // The same ports once more, for a new connection (RFC 9293, section 3.6.1).
    let table = row(table, TcpClosed, [
        [TcpClosed, TcpOpening, TcpClosed, TcpClosed, TcpClosed],
        [TcpClosed, TcpOpening, TcpClosed, TcpClosed, TcpClosed],
    ]);
    // The RST was not the end: whoever forged it must not end the flow (RFC 7857, section 2.2).
    let table = row(table, TcpReset, [
        [TcpEstablished, TcpOpening, TcpReset, TcpClosing, TcpReset],
        [TcpEstablished, TcpOpening, TcpReset, TcpClosing, TcpReset],
    ]);
    row(table, TcpAborted, [
        [TcpOpening, TcpOpening, TcpAborted, TcpAborted, TcpAborted],
        [TcpAborted, TcpOpening, TcpAnswered, TcpAborted, TcpAborted],
    ])
};

/// State and marks after a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The state.
    pub state: State,
    /// Who has sent FIN, who opened the connection, and SYNs in its middle, as bits.
    pub marks: u8,
}

impl Progress {
    /// A flow that begins in that state.
    #[inline(always)]
    pub const fn first(state: State) -> Self {
        Self { state, marks: 0 }
    }

    /// What a packet with these TCP flags makes of it; the flags of UDP and ICMP are 0.
    #[inline(always)]
    pub const fn after(self, direction: Direction, tcp_flags: u8) -> Self {
        match self.state {
            // Most packets: nothing changes by them.
            State::TcpEstablished if tcp_flags & (flags::SYN | flags::FIN | flags::RST) == 0 => self,
            State::UdpUnreplied if matches!(direction, Direction::Reply) => {
                Self { state: State::UdpReplied, marks: 0 }
            }
            State::Dead | State::UdpUnreplied | State::UdpReplied | State::IcmpEcho => self,
            _ => self.after_segment(direction, tcp_flags),
        }
    }

    #[inline(always)]
    const fn after_segment(self, direction: Direction, tcp_flags: u8) -> Self {
        let from = direction as u8;
        let is_from_peer = (self.marks & mark::OPENED_BY_REPLY != 0) != (from == 1);
        let kind = Kind::of(tcp_flags);
        if let Some(reopened) = self.reopened(from, kind) {
            return reopened;
        }
        let event = kind as usize | if is_from_peer { FROM_PEER } else { 0 };
        let next = State::from_number(TRANSITIONS[(self.state as usize & 15) << 4 | event & 15]);
        // Whoever begins anew after the end is who opens the new connection.
        let opener = from << 2;
        let marks = match (kind, self.state, next) {
            (Kind::Fin, _, State::TcpClosing | State::TcpClosed) => self.marks | mark::fin(from),
            (Kind::Syn, State::TcpEstablished | State::TcpClosing, _) => self.marks | mark::syn(from),
            (_, State::TcpClosed | State::TcpReset | State::TcpAborted, State::TcpOpening) => opener,
            _ => self.marks,
        };
        let state = match (next, marks & mark::FIN_BOTH) {
            (State::TcpClosing, mark::FIN_BOTH) => State::TcpClosed,
            // After a RST that was not the end.
            (State::TcpEstablished, mark::FIN_BOTH) => State::TcpClosed,
            (State::TcpEstablished, fins) if fins != 0 => State::TcpClosing,
            (state, _) => state,
        };
        Self { state, marks }
    }

    /// The new connection, where a SYN in the middle of one is answered: the end that sent it had forgotten the old one
    /// (RFC 9293, section 3.5.1).
    #[inline(always)]
    const fn reopened(self, from: u8, kind: Kind) -> Option<Self> {
        let other = 1 - from;
        let is_answer = matches!(kind, Kind::SynAck) && self.marks & mark::syn(other) != 0;
        if is_answer && matches!(self.state, State::TcpEstablished | State::TcpClosing | State::TcpClosed) {
            return Some(Self { state: State::TcpAnswered, marks: other << 2 });
        }
        None
    }
}

/// The state of a flow that begins with such a packet; `None` where such a packet begins none.
#[inline(always)]
pub const fn first(protocol: u8, tcp_flags: u8) -> Option<State> {
    match protocol {
        super::tuple::protocol::UDP => Some(State::UdpUnreplied),
        super::tuple::protocol::ICMP | super::tuple::protocol::ICMPV6 => Some(State::IcmpEcho),
        // An end without a beginning needs no answer. Other segments of an unknown connection are let out, so
        // that the other end's RST tells the container at once.
        super::tuple::protocol::TCP if tcp_flags & (flags::RST | flags::FIN) == 0 => Some(State::TcpOpening),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
