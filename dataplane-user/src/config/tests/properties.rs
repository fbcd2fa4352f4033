//! Text that nobody would write.

use proptest::prelude::*;

use super::read;
use crate::config::{Diagnostic, Failure};

/// A file with every section, from which others are made.
const SEED: &str = "[node]\nname = \"nöde\"\nuplinks = [\"eth0\", \"eth1\"]\nstate-dir = \"/run/d\"\n\
    [datapath]\nuplink-hook = \"tc\"\ndiscover = true\nmax-routes = 0x10\nmax-flows = 9\n\
    [[pool]]\ncidr = \"172.19.0.0/16\"\n[[block]]\ncidr = \"172.19.35.0/24\"\n[[block]]\ncidr = \"172.19.37.0/26\"\n\
    [[endpoint]]\naddress = \"172.19.35.2\"\ninterface = \"cali1\"\n\
    [[route]]\nto = \"172.19.36.0/24\"\nvia = \"10.141.0.2\"\n\
    [[masquerade]]\nsource = \"172.19.0.0/16\"\nexclude = [\"10.0.0.0/8\"]\nports = \"49152-65535\"\n\
    [bgp]\nasn = 64512\nrouter-id = \"10.141.0.1\"\nlisten = \"10.141.0.1:179\"\n\
    [[bgp.peer]]\naddress = \"10.141.0.2\"\nasn = 1\npassive = true\nttl-security-hops = 1\nhold-seconds = 90\n\
    [kernel]\nimport = true\nprotocols = [\"bird\"]\n[log]\nlevel = \"info\"\n";

/// What the grammar of TOML, and the reader of the file, make most of.
const PIECES: &[&str] = &[
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "\"",
    "'",
    "\"\"\"",
    "=",
    ",",
    ".",
    "#",
    "\n",
    "\r\n",
    "\r",
    " ",
    "\\",
    "0",
    "-1",
    "1e9",
    "/",
    "/0",
    "é",
    "😀",
    "\u{feff}",
    "\0",
    "node",
    "[node]\n",
    "[[pool]]\n",
    "[[bgp.peer]]\n",
    "bgp.peer = ",
    "a.b.c = 1\n",
    "cidr = \"172.19.35.64/26\"\n",
    "2026-01-01",
    "true",
    "[node.name]\n",
    "pool = [{}]\n",
];

#[derive(Clone, Debug)]
enum Change {
    Remove { at: prop::sample::Index, characters: usize },
    Insert { at: prop::sample::Index, piece: &'static str },
    Repeat { from: prop::sample::Index, characters: usize, at: prop::sample::Index },
}

impl Change {
    fn any() -> impl Strategy<Value = Self> {
        let place = any::<prop::sample::Index>;
        prop_oneof![
            (place(), 1_usize..30).prop_map(|(at, characters)| Self::Remove { at, characters }),
            (place(), prop::sample::select(PIECES)).prop_map(|(at, piece)| Self::Insert { at, piece }),
            (place(), 1_usize..60, place()).prop_map(|(from, characters, at)| Self::Repeat {
                from,
                characters,
                at
            }),
        ]
    }

    fn apply(self, text: &mut Vec<char>) {
        let size = text.len() + 1;
        match self {
            Self::Remove { at, characters } => {
                let start = at.index(size);
                text.drain(start..text.len().min(start + characters));
            }
            Self::Insert { at, piece } => {
                let start = at.index(size);
                text.splice(start..start, piece.chars());
            }
            Self::Repeat { from, characters, at } => {
                let from = from.index(size);
                let copy = text[from..text.len().min(from + characters)].to_vec();
                let start = at.index(size);
                text.splice(start..start, copy);
            }
        }
    }
}

/// Reads a text; what is said about it must lie in it, on one line, in its order.
fn check(text: &str) -> Result<(), TestCaseError> {
    let (errors, warnings) = match read(text) {
        Ok(loaded) => (Vec::new(), loaded.warnings),
        Err(Failure { errors, warnings }) => {
            prop_assert!(!errors.is_empty());
            (errors, warnings)
        }
    };
    let lines: Vec<&str> = text.split('\n').collect();
    let place = |diagnostic: &Diagnostic| (diagnostic.line, diagnostic.column);
    for diagnostics in [&errors, &warnings] {
        prop_assert!(diagnostics.is_sorted_by_key(place));
        for diagnostic in diagnostics {
            prop_assert!((1..=lines.len()).contains(&diagnostic.line), "{}", diagnostic);
            // One behind the last character is where something is missing.
            let columns = lines[diagnostic.line - 1].chars().count() + 1;
            prop_assert!((1..=columns).contains(&diagnostic.column), "{}", diagnostic);
            let shown = diagnostic.to_string();
            prop_assert!(!shown.contains(char::is_control), "{:?}", shown);
            prop_assert!(!diagnostic.message.is_empty() && !diagnostic.mend.is_empty(), "{}", shown);
        }
    }
    Ok(())
}

#[test]
fn the_seed_is_good() {
    super::accepted(SEED);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_text_is_answered(text in any::<String>()) {
        check(&text)?;
    }

    #[test]
    fn any_row_of_pieces_is_answered(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..40)) {
        check(&pieces.concat())?;
    }

    #[test]
    fn any_change_of_a_good_file_is_answered(changes in prop::collection::vec(Change::any(), 1..6)) {
        let mut text: Vec<char> = SEED.chars().collect();
        for change in changes {
            change.apply(&mut text);
        }
        check(&text.into_iter().collect::<String>())?;
    }
}
