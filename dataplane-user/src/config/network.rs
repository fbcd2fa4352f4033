//! `[[pool]]`, `[[block]]`, `[[endpoint]]`, `[[route]]`: which addresses are where.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use toml::de::DeTable;

use super::address;
use super::report::{Placed, Report};
use super::schema::{Form, Schema};
use super::section::Section;
use super::value;

/// A container of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address.
    pub address: Ipv4Addr,
    /// The host side of its veth.
    pub interface: String,
}

/// Another node's block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The block.
    pub to: Ipv4Net,
    /// That node's address on the fabric.
    pub via: Ipv4Addr,
}

const fn list(name: &'static str, keys: &'static [(&'static str, &'static str)]) -> Schema {
    Schema { name, parent: "", form: Form::Many, keys, sections: &[] }
}

pub(super) const POOL: Schema = list("pool", &[("cidr", "\"172.19.0.0/16\"")]);
pub(super) const BLOCK: Schema = list("block", &[("cidr", "\"172.19.35.0/24\"")]);
pub(super) const ENDPOINT: Schema =
    list("endpoint", &[("address", "\"172.19.35.2\""), ("interface", "\"cali1\"")]);
pub(super) const ROUTE: Schema = list("route", &[("to", "\"172.19.36.0/24\""), ("via", "\"10.141.0.2\"")]);

/// What the sections say; `None` where a value is missing or wrong, which has been reported.
pub(super) struct Draft {
    pub(super) pools: Vec<Option<Placed<Ipv4Net>>>,
    pub(super) blocks: Vec<Option<Placed<Ipv4Net>>>,
    pub(super) endpoints: Vec<EndpointDraft>,
    pub(super) routes: Vec<RouteDraft>,
}

/// An [`Endpoint`] of the file.
pub(super) struct EndpointDraft {
    pub(super) at: usize,
    pub(super) address: Option<Placed<Ipv4Addr>>,
    pub(super) interface: Option<Placed<String>>,
}

/// A [`Route`] of the file.
pub(super) struct RouteDraft {
    pub(super) at: usize,
    pub(super) to: Option<Placed<Ipv4Net>>,
    pub(super) via: Option<Placed<Ipv4Addr>>,
}

pub(super) fn read<'a>(tree: &'a DeTable<'a>, report: &mut Report<'a>) -> Draft {
    let endpoints = Section::each(tree, &ENDPOINT, report, |section| EndpointDraft {
        at: section.at(),
        address: section.required_text("address", address::host),
        interface: section.required_text("interface", value::interface),
    });
    let routes = Section::each(tree, &ROUTE, report, |section| RouteDraft {
        at: section.at(),
        to: section.required_text("to", address::network),
        via: section.required_text("via", address::neighbour),
    });
    Draft {
        pools: prefixes(tree, &POOL, report),
        blocks: prefixes(tree, &BLOCK, report),
        endpoints: endpoints.into_iter().flatten().collect(),
        routes: routes.into_iter().flatten().collect(),
    }
}

fn prefixes<'a>(
    tree: &'a DeTable<'a>,
    schema: &'static Schema,
    report: &mut Report<'a>,
) -> Vec<Option<Placed<Ipv4Net>>> {
    let sections =
        Section::each(tree, schema, report, |section| section.required_text("cidr", address::network));
    sections.into_iter().map(Option::flatten).collect()
}

/// The values of a list that could be read.
pub(super) fn values<T: Copy>(list: &[Option<Placed<T>>]) -> Vec<T> {
    list.iter().flatten().map(|placed| placed.value).collect()
}

impl Draft {
    pub(super) fn endpoints(&self) -> Vec<Endpoint> {
        let endpoint = |draft: &EndpointDraft| {
            Some(Endpoint {
                address: draft.address.as_ref()?.value,
                interface: draft.interface.as_ref()?.value.clone(),
            })
        };
        self.endpoints.iter().filter_map(endpoint).collect()
    }

    pub(super) fn routes(&self) -> Vec<Route> {
        let route =
            |draft: &RouteDraft| Some(Route { to: draft.to.as_ref()?.value, via: draft.via.as_ref()?.value });
        self.routes.iter().filter_map(route).collect()
    }
}
