//! Filters at an interface's clsact ingress: listed and removed by their place.

use anyhow::{Context as _, Result, bail};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_ECHO, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcMessage, TcOption},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// `TC_H_CLSACT` with the minor number of ingress: `include/uapi/linux/pkt_sched.h`.
const CLSACT_INGRESS: TcHandle = TcHandle { major: 0xffff, minor: 0xfff2 };
/// `TC_H_CLSACT` with the minor number of egress.
const CLSACT_EGRESS: TcHandle = TcHandle { major: 0xffff, minor: 0xfff3 };
/// `TC_H_CLSACT`, the parent of the qdisc itself.
const CLSACT: TcHandle = TcHandle { major: 0xffff, minor: 0xfff1 };

/// One filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Its priority, chosen by who added it or by the kernel.
    pub priority: u16,
    /// Its handle.
    pub handle: u32,
    /// The name that a BPF filter was given.
    pub name: Option<String>,
}

/// The filters at clsact ingress of the interface; none where it has no clsact qdisc.
///
/// # Errors
///
/// Where netlink fails for another reason than the interface's or the qdisc's absence.
pub fn of_interface(ifindex: u32) -> Result<Vec<Filter>> {
    list(ifindex, CLSACT_INGRESS)
}

/// The filters at clsact egress of the interface, all of which are somebody else's.
///
/// # Errors
///
/// As [`of_interface`].
pub fn at_egress(ifindex: u32) -> Result<Vec<Filter>> {
    list(ifindex, CLSACT_EGRESS)
}

fn list(ifindex: u32, parent: TcHandle) -> Result<Vec<Filter>> {
    let mut filters = Vec::new();
    let message = RouteNetlinkMessage::GetTrafficFilter(at(ifindex, parent));
    request(message, NLM_F_DUMP, |message| {
        let RouteNetlinkMessage::NewTrafficFilter(filter) = message else { return };
        let handle = u32::from(filter.header.handle);
        if handle == 0 {
            return; // the head of a priority's list
        }
        let name = filter.attributes.iter().find_map(|attribute| match attribute {
            TcAttribute::Options(options) => options.iter().find_map(|option| match option {
                TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => Some(name.clone()),
                _ => None,
            }),
            _ => None,
        });
        // `tcm_info` holds the priority in its upper half and the protocol in its lower one.
        filters.push(Filter { priority: (filter.header.info >> 16) as u16, handle, name });
    })
    .context("cannot list the tc filters")?;
    Ok(filters)
}

/// Whether the interface has a qdisc that takes filters at ingress: clsact, or the older `ingress`.
///
/// # Errors
///
/// As [`of_interface`].
pub fn has_qdisc(ifindex: u32) -> Result<bool> {
    let mut found = false;
    let message = RouteNetlinkMessage::GetQueueDiscipline(at(ifindex, CLSACT));
    // The answer is a notification to all who listen, and to who asks with this flag alone (`qdisc_notify()`).
    request(message, NLM_F_ACK | NLM_F_ECHO, |message| {
        let RouteNetlinkMessage::NewQueueDiscipline(qdisc) = message else { return };
        found |= qdisc.attributes.iter().any(
            |attribute| matches!(attribute, TcAttribute::Kind(kind) if kind == "clsact" || kind == "ingress"),
        );
    })
    .context("cannot ask for the clsact qdisc")?;
    Ok(found)
}

/// Removes one filter; one that is gone already is no error.
///
/// # Errors
///
/// Where netlink refuses.
pub fn delete(ifindex: u32, priority: u16, handle: u32) -> Result<()> {
    let mut message = at(ifindex, CLSACT_INGRESS);
    message.header.handle = TcHandle::from(handle);
    message.header.info = u32::from(priority) << 16 | u32::from((libc::ETH_P_ALL as u16).to_be());
    message.attributes.push(TcAttribute::Kind("bpf".into()));
    request(RouteNetlinkMessage::DelTrafficFilter(message), NLM_F_ACK, |_| ())
        .context("cannot remove the tc filter")
}

/// Removes the clsact qdisc; one that is gone already is no error.
///
/// # Errors
///
/// Where netlink refuses.
pub fn delete_clsact(ifindex: u32) -> Result<()> {
    let mut message = at(ifindex, CLSACT);
    message.header.handle = TcHandle { major: 0xffff, minor: 0 };
    message.attributes.push(TcAttribute::Kind("clsact".into()));
    request(RouteNetlinkMessage::DelQueueDiscipline(message), NLM_F_ACK, |_| ())
        .context("cannot remove the clsact qdisc")
}

fn at(ifindex: u32, parent: TcHandle) -> TcMessage {
    let mut message = TcMessage::with_index(ifindex as i32);
    message.header.parent = parent;
    message
}

/// Sends one request and hands each answer to `each`, until the kernel says that this was all.
fn request(
    message: RouteNetlinkMessage,
    flags: u16,
    mut each: impl FnMut(RouteNetlinkMessage),
) -> Result<()> {
    let mut socket = Socket::new(NETLINK_ROUTE).context("cannot open a netlink socket")?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    header.sequence_number = 1;
    let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    loop {
        let (answer, _) = socket.recv_from_full()?;
        let mut rest = &answer[..];
        while !rest.is_empty() {
            let packet =
                NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).context("netlink's answer")?;
            let length = (packet.header.length as usize).next_multiple_of(4);
            match packet.payload {
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) => match error.code {
                    None => return Ok(()),
                    // No interface, no qdisc or no filter: nothing to list or to remove.
                    Some(code) if [libc::ENODEV, libc::EINVAL, libc::ENOENT].contains(&-code.get()) => {
                        return Ok(());
                    }
                    Some(_) => bail!("{}", error.to_io()),
                },
                NetlinkPayload::InnerMessage(message) => each(message),
                _ => {}
            }
            rest = rest.get(length..).unwrap_or_default();
        }
    }
}
