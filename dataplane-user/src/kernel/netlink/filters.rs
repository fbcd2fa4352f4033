//! Filters at an interface's clsact ingress: listed, added, replaced and removed by the interface's index and their place.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use anyhow::{Context as _, Result, bail};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_ECHO, NLM_F_EXCL, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR,
    NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcBpfFlags, TcFilterBpfOption, TcHandle, TcMessage, TcOption},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::{
    decode::{self, Message, for_each_attribute, split, text_of, u32_of},
    exchange::Refusal,
};

/// `TC_H_CLSACT` with the minor number of ingress: `include/uapi/linux/pkt_sched.h`.
const CLSACT_INGRESS: TcHandle = TcHandle { major: 0xffff, minor: 0xfff2 };
/// `TC_H_CLSACT` with the minor number of egress.
const CLSACT_EGRESS: TcHandle = TcHandle { major: 0xffff, minor: 0xfff3 };
/// `TC_H_CLSACT`, the parent of the qdisc itself.
const CLSACT: TcHandle = TcHandle { major: 0xffff, minor: 0xfff1 };

/// `struct tcmsg` of `linux/rtnetlink.h`.
const HEADER: usize = 20;
/// Attributes of `linux/rtnetlink.h` and `linux/pkt_cls.h`.
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_ID: u16 = 11;

/// One filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Its priority, chosen by who added it or by the kernel.
    pub priority: u16,
    /// Its handle.
    pub handle: u32,
    /// The name that a BPF filter was given.
    pub name: Option<String>,
    /// The id of a BPF filter's program.
    pub program: Option<u32>,
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
    let listed = request(message, NLM_F_DUMP, |message| {
        if message.kind == libc::RTM_NEWTFILTER {
            filters.extend(read(message.payload)?);
        }
        Ok(())
    });
    forgive_absence(listed).context("cannot list the tc filters")?;
    Ok(filters)
}

/// A filter; `None` for the head of a priority's list. Of a filter of another kind only the place is read: whatever
/// its options hold must not hide it, nor keep the others from being listed.
fn read(payload: &[u8]) -> Result<Option<Filter>> {
    let (header, attributes) = split::<HEADER>(payload)?;
    let [_, _, _, _, _, _, _, _, a, b, c, d, _, _, _, _, info @ ..] = *header;
    let handle = u32::from_ne_bytes([a, b, c, d]);
    if handle == 0 {
        return Ok(None);
    }
    // `tcm_info` holds the priority in its upper half and the protocol in its lower one.
    let priority = (u32::from_ne_bytes(info) >> 16) as u16;
    let mut filter = Filter { priority, handle, name: None, program: None };
    let mut is_bpf = false;
    for_each_attribute(attributes, |kind, value| {
        match kind {
            TCA_KIND => is_bpf = text_of(value) == "bpf",
            TCA_OPTIONS if is_bpf => for_each_attribute(value, |kind, value| {
                match kind {
                    TCA_BPF_NAME => filter.name = Some(text_of(value)),
                    TCA_BPF_ID => filter.program = Some(u32_of(value)?),
                    _ => {}
                }
                Ok(())
            })?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(Some(filter))
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
    let asked = request(message, NLM_F_ACK | NLM_F_ECHO, |message| {
        if message.kind == libc::RTM_NEWQDISC {
            let (_, attributes) = split::<HEADER>(message.payload)?;
            for_each_attribute(attributes, |kind, value| {
                found |= kind == TCA_KIND && matches!(text_of(value).as_str(), "clsact" | "ingress");
                Ok(())
            })?;
        }
        Ok(())
    });
    forgive_absence(asked).context("cannot ask for the clsact qdisc")?;
    Ok(found)
}

/// Adds the clsact qdisc.
///
/// # Errors
///
/// [`Refusal`] with `EEXIST` where there is one, and whatever else the kernel refuses.
pub fn add_clsact(ifindex: u32) -> Result<()> {
    let message = RouteNetlinkMessage::NewQueueDiscipline(clsact(ifindex));
    request(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, |_| Ok(()))
}

/// Adds a filter with the program, for packets of every protocol, and by its return value alone (`direct-action`).
///
/// # Errors
///
/// [`Refusal`] with `EEXIST` where its place is taken, and whatever else the kernel refuses.
pub fn add(ifindex: u32, (priority, handle): (u16, u32), program: BorrowedFd<'_>, name: &str) -> Result<()> {
    let message = RouteNetlinkMessage::NewTrafficFilter(filter(ifindex, priority, handle, program, name));
    request(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, |_| Ok(()))
}

/// Makes the program that of a filter that is there.
///
/// # Errors
///
/// Where the kernel refuses.
pub fn replace(
    ifindex: u32,
    (priority, handle): (u16, u32),
    program: BorrowedFd<'_>,
    name: &str,
) -> Result<()> {
    let message = RouteNetlinkMessage::NewTrafficFilter(filter(ifindex, priority, handle, program, name));
    request(message, NLM_F_ACK, |_| Ok(())).context("cannot replace the tc filter's program")
}

/// Removes one filter; one that is gone already is no error.
///
/// # Errors
///
/// Where netlink refuses.
pub fn delete(ifindex: u32, priority: u16, handle: u32) -> Result<()> {
    let message = RouteNetlinkMessage::DelTrafficFilter(place(ifindex, priority, handle));
    forgive_absence(request(message, NLM_F_ACK, |_| Ok(()))).context("cannot remove the tc filter")
}

/// Removes the clsact qdisc; one that is gone already is no error.
///
/// # Errors
///
/// Where netlink refuses.
pub fn delete_clsact(ifindex: u32) -> Result<()> {
    let message = RouteNetlinkMessage::DelQueueDiscipline(clsact(ifindex));
    forgive_absence(request(message, NLM_F_ACK, |_| Ok(()))).context("cannot remove the clsact qdisc")
}

fn at(ifindex: u32, parent: TcHandle) -> TcMessage {
    let mut message = TcMessage::with_index(ifindex as i32);
    message.header.parent = parent;
    message
}

fn clsact(ifindex: u32) -> TcMessage {
    let mut message = at(ifindex, CLSACT);
    message.header.handle = TcHandle { major: 0xffff, minor: 0 };
    message.attributes.push(TcAttribute::Kind("clsact".into()));
    message
}

fn place(ifindex: u32, priority: u16, handle: u32) -> TcMessage {
    let mut message = at(ifindex, CLSACT_INGRESS);
    message.header.handle = TcHandle::from(handle);
    message.header.info = u32::from(priority) << 16 | u32::from((libc::ETH_P_ALL as u16).to_be());
    message.attributes.push(TcAttribute::Kind("bpf".into()));
    message
}

fn filter(ifindex: u32, priority: u16, handle: u32, program: BorrowedFd<'_>, name: &str) -> TcMessage {
    let mut message = place(ifindex, priority, handle);
    message.attributes.push(TcAttribute::Options(vec![
        TcOption::Bpf(TcFilterBpfOption::ProgFd(program.as_raw_fd().cast_unsigned())),
        TcOption::Bpf(TcFilterBpfOption::ProgName(name.to_owned())),
        TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
    ]));
    message
}

/// No interface, no qdisc or no filter: nothing to list or to remove.
fn forgive_absence(result: Result<()>) -> Result<()> {
    match result {
        Err(error)
            if error.downcast_ref::<Refusal>().is_some_and(|refusal| {
                matches!(refusal.errno, libc::ENODEV | libc::EINVAL | libc::ENOENT)
            }) =>
        {
            Ok(())
        }
        result => result,
    }
}

/// Sends one request and hands each answer to `each`, until the kernel says that this was all.
fn request(
    message: RouteNetlinkMessage,
    flags: u16,
    mut each: impl FnMut(&Message<'_>) -> Result<()>,
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
        for message in decode::messages(&answer) {
            let message = message?;
            match message.kind {
                NLMSG_ERROR | NLMSG_DONE => {
                    let Some(errno) = message.payload.first_chunk().map(|errno| i32::from_ne_bytes(*errno))
                    else {
                        bail!("a netlink answer ends without an error number");
                    };
                    return match errno {
                        0 => Ok(()),
                        errno => Err(Refusal { errno: errno.saturating_neg(), text: None }.into()),
                    };
                }
                _ => each(&message)?,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = (4 + value.len()) as u16;
        let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(handle: u32, attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut header = [0; HEADER];
        header[8..12].copy_from_slice(&handle.to_ne_bytes());
        header[16..20].copy_from_slice(&(0xc000_u32 << 16 | 0x0300).to_ne_bytes());
        [header.to_vec(), attributes.concat()].concat()
    }

    #[test]
    fn a_bpf_filter_tells_its_name_and_program() -> Result<()> {
        let options =
            [attribute(TCA_BPF_NAME, b"from_uplink\0"), attribute(TCA_BPF_ID, &7_u32.to_ne_bytes())];
        let payload = message(3, &[attribute(TCA_KIND, b"bpf\0"), attribute(TCA_OPTIONS, &options.concat())]);
        let expected =
            Filter { priority: 0xc000, handle: 3, name: Some("from_uplink".to_owned()), program: Some(7) };
        assert_eq!(read(&payload)?, Some(expected));
        Ok(())
    }

    #[test]
    fn options_of_another_kind_are_not_looked_into() -> Result<()> {
        // As an attribute, this would reach beyond its end.
        let payload = message(3, &[attribute(TCA_KIND, b"flower\0"), attribute(TCA_OPTIONS, &[0xff; 6])]);
        assert_eq!(read(&payload)?, Some(Filter { priority: 0xc000, handle: 3, name: None, program: None }));
        assert_eq!(read(&message(0, &[]))?, None);
        Ok(())
    }
}
