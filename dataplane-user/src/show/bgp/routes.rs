//! `dataplane bgp routes`: part by part, since there may be more than fit into memory twice.

use std::{cell::RefCell, io::Write};

use anyhow::{Context as _, Result};
use ipnet::Ipv4Net;
use serde::{Serialize, Serializer, ser::SerializeStruct as _};

use crate::control::answers::{BgpRoute, BgpRoutes};

const HEADINGS: [&str; 8] = ["", "PREFIX", "NEXT HOP", "PEER", "PREF", "AS PATH", "ORIGIN", "NOTE"];

/// The parts, as they are asked for.
pub struct Routes<F> {
    /// Gives the part that follows a prefix.
    ask: F,
    after: Option<Ipv4Net>,
    /// What the last part said beside its routes.
    announced: Vec<Ipv4Net>,
    ended: bool,
}

impl<F: FnMut(Option<Ipv4Net>) -> Result<BgpRoutes>> Routes<F> {
    /// None of them yet.
    pub fn new(ask: F) -> Self {
        Self { ask, after: None, announced: Vec::new(), ended: false }
    }

    /// Writes all of them, as one JSON object or as a table.
    ///
    /// # Errors
    ///
    /// Where a part is not to be had, or cannot be written.
    pub fn write(self, mut output: impl Write, json: bool) -> Result<()> {
        if json {
            serde_json::to_writer_pretty(&mut output, &Object(RefCell::new(self)))?;
            writeln!(output)?;
        } else {
            self.write_table(&mut output)?;
        }
        Ok(output.flush()?)
    }

    fn write_table(mut self, output: &mut impl Write) -> Result<()> {
        let mut widths = None;
        while let Some(part) = self.part()? {
            let rows: Vec<_> = part.iter().map(row).collect();
            // Those of the first part serve the others, too: nearly always it is the only one.
            let first = widths.is_none();
            let widths = widths.get_or_insert_with(|| widths_of(&rows));
            if first {
                write_row(output, widths, &HEADINGS.map(str::to_owned))?;
            }
            rows.iter().try_for_each(|row| write_row(output, widths, row))?;
        }
        for prefix in &self.announced {
            writeln!(output, "announced: {prefix}")?;
        }
        Ok(())
    }

    /// The next routes; none after the last.
    fn part(&mut self) -> Result<Option<Vec<BgpRoute>>> {
        if self.ended {
            return Ok(None);
        }
        let BgpRoutes { learned, announced, next } = (self.ask)(self.after)?;
        (self.announced, self.after, self.ended) = (announced, next, next.is_none());
        Ok(Some(learned))
    }
}

fn row(route: &BgpRoute) -> [String; 8] {
    let path: Vec<_> = route.as_path.iter().map(ToString::to_string).collect();
    let stale = route.stale.then_some("stale: the peer restarts");
    let note = route.refused_text.as_deref().map(|text| format!("refused: {text}"));
    [
        if route.best { "*" } else { "" }.to_owned(),
        route.prefix.to_string(),
        route.next_hop.to_string(),
        route.peer.to_string(),
        route.local_preference.to_string(),
        path.join(" "),
        route.origin.clone(),
        note.or(stale.map(str::to_owned)).unwrap_or_default(),
    ]
}

fn widths_of(rows: &[[String; 8]]) -> [usize; 8] {
    let mut widths = HEADINGS.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    widths
}

fn write_row(output: &mut impl Write, widths: &[usize; 8], cells: &[String; 8]) -> Result<()> {
    let mut line = String::new();
    for (cell, &width) in cells.iter().zip(widths) {
        line.push_str(&format!(" {cell:width$} "));
    }
    writeln!(output, "{}", line.trim_end()).map_err(Into::into)
}

/// The JSON object of all parts, which is never whole in memory.
struct Object<F>(RefCell<Routes<F>>);

impl<F: FnMut(Option<Ipv4Net>) -> Result<BgpRoutes>> Serialize for Object<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("BgpRoutes", 2)?;
        object.serialize_field("learned", &Learned(&self.0))?;
        object.serialize_field("announced", &self.0.borrow().announced)?;
        object.end()
    }
}

struct Learned<'a, F>(&'a RefCell<Routes<F>>);

impl<F: FnMut(Option<Ipv4Net>) -> Result<BgpRoutes>> Serialize for Learned<'_, F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut failure = None;
        let parts =
            std::iter::from_fn(|| match self.0.borrow_mut().part().context("the list is not whole") {
                Ok(part) => part,
                Err(error) => {
                    failure = Some(error);
                    None
                }
            });
        let list = serializer.collect_seq(parts.flatten());
        match failure {
            Some(error) => Err(serde::ser::Error::custom(format!("{error:#}"))),
            None => list,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(n: u32) -> BgpRoute {
        let address = std::net::Ipv4Addr::from(n);
        BgpRoute {
            prefix: address.into(),
            peer: address,
            next_hop: address,
            best: true,
            stale: false,
            refused: None,
            refused_text: None,
            local_preference: 100,
            as_path: vec![7],
            origin: "igp".to_owned(),
            med: None,
            originator: None,
            clusters: Vec::new(),
        }
    }

    /// Ten thousand routes in parts of thirty, of which one may fail.
    fn written(json: bool, fails: bool) -> Result<String> {
        let all: Vec<_> = (0..10_000).map(route).collect();
        let mut parts = 0;
        let ask = |after: Option<Ipv4Net>| {
            parts += 1;
            anyhow::ensure!(!fails || parts < 3, "the daemon went away");
            let begin = after.map_or(0, |prefix| u32::from(prefix.addr()) as usize + 1);
            let end = (begin + 30).min(all.len());
            let next = (end < all.len()).then(|| all[end - 1].prefix);
            let announced = if next.is_none() { vec!["172.19.35.0/24".parse()?] } else { Vec::new() };
            Ok(BgpRoutes { learned: all[begin..end].to_vec(), announced, next })
        };
        let mut output = Vec::new();
        Routes::new(ask).write(&mut output, json)?;
        Ok(String::from_utf8(output)?)
    }

    #[test]
    fn the_parts_are_one_object_and_one_table() {
        let object: serde_json::Value = serde_json::from_str(&written(true, false).unwrap()).unwrap();
        assert_eq!(object["learned"].as_array().unwrap().len(), 10_000);
        assert_eq!(object["announced"], serde_json::json!(["172.19.35.0/24"]));
        let table = written(false, false).unwrap();
        assert_eq!(table.lines().count(), 10_002);
        assert!(table.starts_with("    PREFIX "), "{table:.80}");
        assert!(table.ends_with("announced: 172.19.35.0/24\n"));
    }

    #[test]
    fn a_list_that_is_not_whole_is_an_error() {
        for json in [true, false] {
            let error = format!("{:#}", written(json, true).unwrap_err());
            assert!(error.contains("the daemon went away"), "{error}");
        }
    }
}
