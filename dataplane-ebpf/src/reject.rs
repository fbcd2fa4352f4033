//! ICMP errors about packets, in a program of its own: few packets need one, and none pays for it.
//!
//! They are made here where the kernel's would be wrong, since it knows nothing of translation: about a packet that is too
//! big when it leaves translated, about a reply that is too big for its container, and where a flow is refused. What the
//! kernel can answer is left to it.

use core::{hint, mem::MaybeUninit, ptr};

use aya_ebpf::{
    btf_maps::PerCpuArray,
    helpers::{bpf_csum_diff, bpf_ktime_get_ns},
    macros::btf_map,
};
use dataplane_common::{
    checksum,
    flow::tuple::protocol,
    names::PROGRAM_TO_REJECT,
    net::Ipv4Be,
    reason::Reason,
    reject::{Error, QUOTE, QUOTE_ROOM, Rejection},
    route::Target,
    stats::Hook,
    trace::StepCode,
};

use crate::{
    ethernet, flow,
    ipv4::{self, Ipv4},
    monitor, observe,
    packet::{Packet, skb::Skb},
    route, source,
    verdict::Walk,
};

/// Bytes of the IP and ICMP headers of an error, and of an IP header.
const HEADERS: u32 = HEADER + 8;
const HEADER: u32 = 20;

const TTL: u8 = 64;
const DONT_FRAGMENT: u16 = 0x4000;

/// The router that containers know: 169.254.1.1.
const GATEWAY: Ipv4Be = Ipv4Be::from_host(0xa9fe_0101);

/// This CPU's own: the programs at the hooks do not interrupt each other.
///
/// Old and new programs share it during an upgrade: its name changes with its layout.
#[btf_map]
static REJECTION: PerCpuArray<Rejection, 1> = PerCpuArray::new();

/// A packet that its sender is to be told about.
pub struct Request {
    /// Where it came in.
    pub hook: Hook,
    /// Why it ends: a drop, which is counted for it.
    pub reason: Reason,
    /// What is told.
    pub error: Error,
}

/// Goes on in the program that drops the packet and tells its sender, of a packet that is still as it came; comes back
/// only where that cannot be, with the reason to end the walk with. At XDP, that is left to tc.
#[inline(always)]
pub fn go_on<P: Packet>(packet: &P, request: Request) -> Reason {
    if P::IS_FRAME {
        return Reason::TcTranslates;
    }
    tell(packet, request.hook as u32, request.reason as u32, request.error);
    request.reason
}

/// The same by the numbers of hook and reason.
#[inline(always)]
pub fn tell(packet: &impl Packet, hook: u32, reason: u32, error: Error) {
    let Some(rejection) = REJECTION.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's own value.
    unsafe {
        (*rejection).hook = hook;
        (*rejection).reason = reason;
        (*rejection).error = error;
    }
    packet.tail_call(PROGRAM_TO_REJECT);
}

/// Counts and shows the packet that was left here last, and has it answered; gives what the program returns.
#[inline(always)]
pub fn answer(packet: &Skb) -> i32 {
    let Some(rejection) = REJECTION.get_ptr_mut(0) else { return Skb::drop() };
    // SAFETY: this CPU's own value, which nobody else writes before the packet has ended.
    let rejection = unsafe { &mut *rejection };
    let Error { kind, code, mtu } = rejection.error;
    observe::step(StepCode::Rejected, [kind.into(), code.into(), mtu.into()]);
    observe::count_number(rejection.hook, rejection.reason, packet.len());
    monitor::show_ended(packet, rejection.hook, rejection.reason);
    if observe::is_trace() || make(packet, rejection).is_err() {
        return Skb::drop();
    }
    packet.send_back()
}

/// Makes an error about the packet of it, for who sent it.
#[inline(always)]
fn make(packet: &Skb, rejection: &mut Rejection) -> Walk<()> {
    packet.pull_headers();
    if !ethernet::is_ipv4(packet)? {
        return Err(Reason::OtherProtocol);
    }
    let ipv4 = ipv4::read(packet)?;
    check_answerable(packet, &ipv4)?;
    // The next attempt finds the other table.
    if rejection.reason == Reason::NatShare as u32 && flow::is_stopped() {
        return Err(Reason::NatShare);
    }
    let from = address(&ipv4, rejection.hook)?;
    // SAFETY: a helper without arguments.
    if !rejection.take(unsafe { bpf_ktime_get_ns() }) {
        return Err(Reason::NatContended);
    }
    let (length, sum) = quote(packet, &ipv4, rejection)?;
    let macs = *packet.header::<[u16; 6]>(0)?;
    packet.trim(ipv4::OFFSET as u32 + length)?;
    packet.make_room(HEADERS)?;
    let mut headers = MaybeUninit::uninit();
    write_headers(&mut headers, macs, (from, ipv4.source), rejection.error, (length, sum));
    packet.store(&headers)
}

/// An error is never about an error, a later fragment, or a packet from or to nobody in particular (RFC 1122, section
/// 3.2.2). That the frame is for this host alone, its hook has seen.
#[inline(always)]
fn check_answerable(packet: &Skb, ipv4: &Ipv4) -> Walk<()> {
    if ipv4.is_later_fragment() || source::is_reserved(ipv4.source) || source::is_reserved(ipv4.destination) {
        return Err(Reason::Reserved);
    }
    // Of ICMP only queries are answered: of what is not known it is not known whether it is an error.
    if ipv4.protocol == protocol::ICMP && !matches!(packet.byte(ipv4.header_end())?, 0 | 8 | 13..=18) {
        return Err(Reason::NatBadError);
    }
    Ok(())
}

/// Who says it: an address of the node's that the sender knows, as the kernel's errors and traceroute show it. About a reply
/// that is the one that it was sent to; about a packet out, the one that it would have got; else the container's gateway.
#[inline(always)]
fn address(ipv4: &Ipv4, hook: u32) -> Walk<Ipv4Be> {
    if let Some(Target::Kernel(Reason::ToHost)) = route::lookup(ipv4.destination).target() {
        return Ok(ipv4.destination);
    }
    match flow::translated_address(ipv4.source, ipv4.destination) {
        Some(address) => Ok(address),
        None if hook == Hook::FromContainer as u32 => Ok(GATEWAY),
        None => Err(Reason::NatNoAddress),
    }
}

/// Copies what is quoted; gives its length, and its sum.
///
/// Where the transport checksum is left to a device, the quotation has its field, and whoever completes that makes the
/// sum of all that it covers the complement of what the field holds now.
#[inline(always)]
fn quote(packet: &Skb, ipv4: &Ipv4, rejection: &mut Rejection) -> Walk<(u32, u64)> {
    let length = ipv4.length_in(packet.len()).min(QUOTE as u32);
    // As in `Packet::copy`, for the verifier of Linux 6.1.
    let last = hint::black_box(length.max(HEADER) - 1);
    if last >= QUOTE as u32 {
        return Err(Reason::Malformed);
    }
    let count = last + 1;
    // SAFETY: there is room for QUOTE bytes.
    if !unsafe { packet.load(ipv4::OFFSET as u32, rejection.quote.as_mut_ptr(), count) } {
        return Err(Reason::Malformed);
    }
    for beyond in 0..3 {
        rejection.quote[(count + beyond) as usize % QUOTE_ROOM] = 0;
    }
    let (header, rest) = rejection.quote.split_at_mut(HEADER as usize);
    let sum = sum_of(header.as_mut_ptr(), HEADER)?;
    if !ipv4.has_options()
        && let Ok(Some((field, pseudo_header))) = ipv4::checksum_of_transport(packet, ipv4)
        && field == pseudo_header
    {
        return Ok((length, sum + u64::from(!field)));
    }
    let words = (count.saturating_sub(HEADER) + 3) & 0x1fc;
    Ok((length, sum + sum_of(rest.as_mut_ptr(), words)?))
}

/// The sum of so many bytes, a multiple of four.
#[inline(always)]
fn sum_of(bytes: *mut u8, length: u32) -> Walk<u64> {
    // SAFETY: the callers have as many bytes; there are none on the other side of the difference.
    let sum = unsafe { bpf_csum_diff(ptr::null_mut(), 0, bytes.cast(), length, 0) };
    if sum < 0 { Err(Reason::Malformed) } else { Ok(sum as u32 as u64) }
}

/// Writes the error's own headers: Ethernet back to where the packet came from, IPv4 and ICMP (RFC 792).
#[inline(always)]
fn write_headers(
    place: &mut MaybeUninit<[u16; 21]>,
    macs: [u16; 6],
    (from, to): (Ipv4Be, Ipv4Be),
    error: Error,
    (quoted, sum): (u32, u64),
) {
    let total = (HEADERS + quoted) as u16;
    let halves = |address: Ipv4Be| [address.to_wire() as u16, (address.to_wire() >> 16) as u16];
    let ([from_first, from_last], [to_first, to_last]) = (halves(from), halves(to));
    let version_and_precedence = 0x45c0u16.to_be(); // internetwork control, as the kernel's
    let (total, fragment) = (total.to_be(), DONT_FRAGMENT.to_be());
    let ttl_and_protocol = (u16::from(TTL) << 8 | u16::from(protocol::ICMP)).to_be();
    let words =
        [version_and_precedence, total, fragment, ttl_and_protocol, from_first, from_last, to_first, to_last];
    let ip_checksum = checksum::of_sum(words.iter().map(|word| u64::from(*word)).sum());
    let kind_and_code = (u16::from(error.kind) << 8 | u16::from(error.code)).to_be();
    let mtu = error.mtu.to_be();
    let icmp_checksum = checksum::of_sum(sum + u64::from(kind_and_code) + u64::from(mtu));
    let halves = [
        macs[3],
        macs[4],
        macs[5],
        macs[0],
        macs[1],
        macs[2],
        0x0800u16.to_be(),
        version_and_precedence,
        total,
        0, // without fragments, the identification says nothing (RFC 6864)
        fragment,
        ttl_and_protocol,
        ip_checksum,
        from_first,
        from_last,
        to_first,
        to_last,
        kind_and_code,
        icmp_checksum,
        0,
        mtu,
    ];
    for (index, half) in halves.into_iter().enumerate() {
        // SAFETY: within the array. Volatile: the compiler would make words of them that lie misaligned on the stack.
        unsafe { place.as_mut_ptr().cast::<u16>().add(index).write_volatile(half) };
    }
}
