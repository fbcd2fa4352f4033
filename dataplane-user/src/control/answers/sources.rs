//! What the daemon alone knows of the routes: who offers them.

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::Route;
use crate::rib::Source;

/// The sources of some prefixes, in their order.
///
/// Each is one number, the source above the address above the length: a list of a million routes asks for all of them,
/// and the daemon's loop has other things to do.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SourcePage {
    routes: Vec<u64>,
    /// The first prefix of the next page; none on the last.
    pub next: Option<Ipv4Net>,
}

const ADDRESS_SHIFT: u32 = 8;
const SOURCE_SHIFT: u32 = 40;

impl SourcePage {
    /// The page with these, and what follows them.
    pub fn new(routes: impl Iterator<Item = (Ipv4Net, Source)>, next: Option<Ipv4Net>) -> Self {
        let number = |(prefix, source): (Ipv4Net, Source)| {
            (source as u64) << SOURCE_SHIFT
                | u64::from(prefix.addr().to_bits()) << ADDRESS_SHIFT
                | u64::from(prefix.prefix_len())
        };
        Self { routes: routes.map(number).collect(), next }
    }

    /// What stands on it.
    pub fn sources(&self) -> Vec<(Ipv4Net, Source)> {
        let parse = |number: &u64| {
            let source = *Source::ALL.get((number >> SOURCE_SHIFT) as usize)?;
            let address = (number >> ADDRESS_SHIFT) as u32;
            Some((Ipv4Net::new(address.into(), *number as u8).ok()?, source))
        };
        self.routes.iter().filter_map(parse).collect()
    }
}

/// What was offered for a prefix.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Offers {
    /// Whose offer holds: as [`Route::source`].
    pub source: Option<String>,
    /// The others, in order of preference.
    pub others: Vec<Route>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_comes_back_as_it_was() {
        let routes: Vec<(Ipv4Net, Source)> = vec![
            ("0.0.0.0/0".parse().unwrap(), Source::Kernel),
            ("172.19.35.2/32".parse().unwrap(), Source::Config),
            ("255.255.255.255/32".parse().unwrap(), Source::Host),
        ];
        let page = SourcePage::new(routes.iter().copied(), None);
        let read: SourcePage = serde_json::from_str(&serde_json::to_string(&page).unwrap()).unwrap();
        assert_eq!(read.sources(), routes);
    }
}
