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

/// Marks of a flow beside its state, as bits: what the reply direction has done is one place above.
mod mark {
    /// Has sent FIN.
    pub const FIN: u8 = 1;
    /// Both directions have.
    pub const FIN_BOTH: u8 = FIN | FIN << 1;
    /// The connection was opened by the reply direction: the same ports once more, the other way round.
    pub const OPENED_BY_REPLY: u8 = 4;
    /// Has sent a SYN in the middle of a connection: its end may have forgotten the connection and begin anew. What the other
    /// end answers decides.
    pub const SYN: u8 = 8;
}

/// What a packet says: by its TCP flags alone, or that it answers a SYN in the middle of a connection.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Data = 0,
    Syn = 1,
    SynAck = 2,
    Fin = 3,
    Rst = 4,
    /// A SYN-ACK to such a SYN: the end that sent it had forgotten the old connection (RFC 9293, section 3.5.1).
    Reopens = 5,
}

/// The kind by FIN, SYN and RST in the three lowest bits, and ACK in the next.
const KINDS: [u8; 16] = {
    let mut kinds = [Kind::Data as u8; 16];
    let mut index = 0;
    while index < 16 {
        let flags = index as u8;
        let kind = match (flags & flags::RST != 0, flags & flags::SYN != 0, flags & flags::FIN != 0) {
            (true, ..) => Kind::Rst,
            (_, true, _) if flags & flags::ACK >> 1 != 0 => Kind::SynAck,
            (_, true, _) => Kind::Syn,
            (.., true) => Kind::Fin,
            _ => Kind::Data,
        };
        kinds[index] = kind as u8;
        index += 1;
    }
    kinds
};

/// An event is the kind of a packet, with this bit where the peer of the end that opened the connection sent it.
const FROM_PEER: u8 = 8;

/// What an event does to the marks: bits above the next state in a [`TRANSITIONS`] entry.
mod act {
    /// Marks the sender's FIN.
    pub const FIN: u8 = 0x10;
    /// Marks the sender's SYN.
    pub const SYN: u8 = 0x20;
    /// A new connection, without marks but who opened it: the sender.
    pub const SENDER_OPENS: u8 = 0x40;
    /// The same: the one that the sender answers.
    pub const OTHER_OPENS: u8 = 0x80;
}

/// What becomes of a flow: `[state][event]`, RFC 9293 section 3.3.2 as someone between both ends sees it. An entry is the next
/// state with what happens to the marks ([`act`]).
///
/// Where both have sent FIN, `TcpClosing` is `TcpClosed`, and so is what comes after a RST that was not the end ([`ENDS`]).
/// A SYN in the middle of a connection changes nothing before it is answered by a SYN-ACK.
const TRANSITIONS: [u8; 256] = {
    use State::*;
    const fn on(state: State, act: u8) -> u8 {
        state as u8 | act
    }
    const fn to(state: State) -> u8 {
        state as u8
    }
    const FIN: u8 = on(TcpClosing, act::FIN);
    const OPENS: u8 = on(TcpOpening, act::SENDER_OPENS);
    const REOPENS: u8 = on(TcpAnswered, act::OTHER_OPENS);
    /// A row: data, SYN, SYN-ACK, FIN, RST, SYN-ACK to a SYN in the middle, of the opener; then the same of its peer.
    const fn row(mut table: [u8; 256], state: State, next: [[u8; 6]; 2]) -> [u8; 256] {
        let (mut side, mut kind) = (0, 0);
        while side < 2 {
            while kind < 6 {
                table[((state as usize) << 4) | (side * FROM_PEER as usize) | kind] = next[side][kind];
                kind += 1;
            }
            (side, kind) = (side + 1, 0);
        }
        table
    }
    const fn same(table: [u8; 256], state: State, by_opener: State, by_peer: State) -> [u8; 256] {
        row(table, state, [[to(by_opener); 6], [to(by_peer); 6]])
    }
    let (open, answered, established) = (to(TcpOpening), to(TcpAnswered), to(TcpEstablished));
    let (closing, closed, reset, aborted) = (to(TcpClosing), to(TcpClosed), to(TcpReset), to(TcpAborted));
    let (syn, closing_syn) = (on(TcpEstablished, act::SYN), on(TcpClosing, act::SYN));
    let table = [to(Dead); 256];
    // Data of one end alone opens nothing; the other end's, without a SYN-ACK before, is a connection from before the flow.
    let table = row(
        table,
        TcpOpening,
        [[open, open, open, open, aborted, open], [established, answered, answered, FIN, aborted, answered]],
    );
    let table = row(
        table,
        TcpAnswered,
        [
            [established, answered, answered, FIN, aborted, answered],
            [answered, answered, answered, FIN, aborted, answered],
        ],
    );
    let table = row(table, TcpEstablished, [[established, syn, established, FIN, reset, REOPENS]; 2]);
    let table = row(table, TcpClosing, [[closing, closing_syn, closing, FIN, reset, REOPENS]; 2]);
    // The same ports once more, for a new connection (RFC 9293, section 3.6.1).
    let table = row(table, TcpClosed, [[closed, OPENS, closed, closed, closed, REOPENS]; 2]);
    // The RST was not the end: whoever forged it must not end the flow (RFC 7857, section 2.2).
    let table = row(table, TcpReset, [[established, OPENS, reset, FIN, reset, reset]; 2]);
    let table = row(
        table,
        TcpAborted,
        [
            [OPENS, OPENS, aborted, aborted, aborted, aborted],
            [aborted, OPENS, answered, aborted, aborted, answered],
        ],
    );
    let table = same(table, UdpUnreplied, UdpUnreplied, UdpReplied);
    let table = same(table, UdpReplied, UdpReplied, UdpReplied);
    same(table, IcmpEcho, IcmpEcho, IcmpEcho)
};

/// What a state is with the FINs of no, either and both directions: `[state][FINs]`.
const ENDS: [u8; 64] = {
    let mut ends = [0; 64];
    let mut index = 0;
    while index < 64 {
        let (state, fins) = (index as u8 >> 2, index as u8 & mark::FIN_BOTH);
        let is_open = state == State::TcpEstablished as u8 || state == State::TcpClosing as u8;
        ends[index] = match fins {
            mark::FIN_BOTH if is_open => State::TcpClosed as u8,
            1 | 2 if is_open => State::TcpClosing as u8,
            _ => state,
        };
        index += 1;
    }
    ends
};

/// State and marks after a packet, by their numbers. Without branches for the verifier to follow: all is looked up.
///
/// `zero` is 0, of which the compiler does not know it: the verifier of Linux 6.1 knows no bounds of an "or", and the compiler
/// must leave the masks that give them.
#[inline(always)]
pub(super) fn after(state: u8, marks: u8, direction: Direction, tcp_flags: u8, zero: u32) -> (u8, u8) {
    let index = |bits: u32, mask: u32| (bits.wrapping_add(zero) & mask) as usize;
    let from = direction as u8;
    let kind = KINDS[index((tcp_flags & 7 | (tcp_flags & flags::ACK) >> 1).into(), 15)];
    // 1 where the other direction's SYN waits for this SYN-ACK.
    let is_awaited = marks >> (4 - from) & 1;
    let is_syn_ack = (kind == Kind::SynAck as u8) as u8;
    let kind = kind + (is_awaited & is_syn_ack) * (Kind::Reopens as u8 - Kind::SynAck as u8);
    let is_from_peer = marks >> 2 & 1 ^ from;
    let event = kind | (is_from_peer * FROM_PEER);
    let entry = TRANSITIONS[index((state & 15) as u32 * 16 + (event & 15) as u32, 255)];
    let (sender_opens, other_opens) = (entry >> 6 & 1, entry >> 7);
    // 0xff where the old marks stay.
    let kept = (sender_opens | other_opens).wrapping_sub(1);
    let opener = (sender_opens & from | other_opens & (from ^ 1)) << 2;
    let marks = marks & kept | opener | (entry >> 4 & 1) << from | (entry >> 5 & 1) << (3 + from);
    let next = ENDS[index(((entry & 15) << 2 | marks & mark::FIN_BOTH).into(), 63)];
    (next, marks)
}

const _: () = assert!(mark::SYN == 1 << 3 && mark::OPENED_BY_REPLY == 1 << 2 && mark::FIN == 1);

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
    pub fn after(self, direction: Direction, tcp_flags: u8) -> Self {
        let (state, marks) = after(self.state as u8, self.marks, direction, tcp_flags, 0);
        Self { state: State::from_number(state), marks }
    }
}

/// The state of a flow that begins with such a packet; `None` where such a packet begins none. An echo reply, which begins
/// none, is given with the flag ACK.
#[inline(always)]
pub const fn first(protocol: u8, tcp_flags: u8) -> Option<State> {
    match protocol {
        super::tuple::protocol::UDP => Some(State::UdpUnreplied),
        super::tuple::protocol::ICMP | super::tuple::protocol::ICMPV6 if tcp_flags == 0 => {
            Some(State::IcmpEcho)
        }
        // An end without a beginning needs no answer. Other segments of an unknown connection are let out, so
        // that the other end's RST tells the container at once.
        super::tuple::protocol::TCP if tcp_flags & (flags::RST | flags::FIN) == 0 => Some(State::TcpOpening),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
