//! Who offers each route, as the daemon knows it: asked page by page, beside the table that is read in the same order.

use std::{iter::Peekable, vec};

use anyhow::Result;
use ipnet::Ipv4Net;

use crate::{
    control::{Request, answers::SourcePage, client::Client},
    log,
    rib::Source,
};

/// The daemon's side of a list that is read in the order of prefixes.
pub(super) struct Sources<'a> {
    client: &'a Client,
    page: Peekable<vec::IntoIter<(Ipv4Net, Source)>>,
    /// Where the next page begins; none after the last.
    next: Option<Ipv4Net>,
    failed: Option<anyhow::Error>,
}

impl<'a> Sources<'a> {
    /// Asks the daemon of that state directory for the first page.
    pub(super) fn ask(client: &'a Client) -> Self {
        let mut sources = Self {
            client,
            page: Vec::new().into_iter().peekable(),
            next: Some(Ipv4Net::default()),
            failed: None,
        };
        sources.turn();
        sources
    }

    /// Whose route that is; prefixes are asked for in their order.
    pub(super) fn of(&mut self, prefix: Ipv4Net) -> Option<Source> {
        loop {
            while self.page.next_if(|(candidate, _)| *candidate < prefix).is_some() {}
            if let Some((candidate, source)) = self.page.peek() {
                return (*candidate == prefix).then_some(*source);
            }
            if !self.turn() {
                return None;
            }
        }
    }

    /// Goes on to the next page, if there is one.
    fn turn(&mut self) -> bool {
        let Some(from) = self.next.take() else { return false };
        let page: Result<SourcePage> = self.client.ask(&Request::Sources { from });
        match page {
            Ok(page) => {
                self.next = page.next;
                self.page = page.sources().into_iter().peekable();
                true
            }
            Err(error) => {
                self.failed = Some(error);
                false
            }
        }
    }

    /// Says on standard error where the daemon's part is missing, and why.
    pub(super) fn report(self) {
        if let Some(error) = self.failed {
            missing(&error);
        }
    }
}

/// Says what the output lacks without the daemon.
pub(super) fn missing(error: &anyhow::Error) {
    log::complain(&format!(
        "the sources of routes and other offers are missing, which the daemon alone knows: {error:#}"
    ));
}
