//! Configuration files, built or given.

use std::{env, fmt::Display, path::Path};

/// `uplink-hook` of every file that does not say it, where this is set in the environment: so the same tests run at
/// both hooks of an uplink.
const UPLINK_HOOK: &str = "DATAPLANE_TEST_UPLINK_HOOK";

/// The hook of an uplink that this run of the tests asks for; `None` for the daemon's own choice.
pub fn uplink_hook() -> Option<String> {
    env::var(UPLINK_HOOK).ok().filter(|hook| !hook.is_empty())
}

/// A configuration file, to which a [`Daemon`](super::Daemon) adds its own `state-dir` and `bpf-dir`.
#[derive(Clone, Debug, Default)]
pub struct Config {
    given: String,
    node: String,
    datapath: String,
    tables: String,
}

impl Config {
    /// An empty file.
    pub fn new() -> Self {
        Self::default()
    }

    /// A file given as text, but for the two directories; what is added goes into its tables.
    pub fn from_text(text: &str) -> Self {
        Self { given: text.to_owned(), ..Self::default() }
    }

    /// A key of `[node]` with a value as TOML writes it: `.node("uplinks", r#"["eth0"]"#)`.
    #[must_use]
    pub fn node(mut self, key: &str, value: impl Display) -> Self {
        self.node += &format!("{key} = {value}\n");
        self
    }

    /// A key of `[datapath]` with a value as TOML writes it: `.datapath("discover", false)`.
    #[must_use]
    pub fn datapath(mut self, key: &str, value: impl Display) -> Self {
        self.datapath += &format!("{key} = {value}\n");
        self
    }

    /// A `[[pool]]`.
    #[must_use]
    pub fn pool(self, cidr: &str) -> Self {
        self.table(&format!("[[pool]]\ncidr = \"{cidr}\""))
    }

    /// A `[[block]]`.
    #[must_use]
    pub fn block(self, cidr: &str) -> Self {
        self.table(&format!("[[block]]\ncidr = \"{cidr}\""))
    }

    /// An `[[endpoint]]`.
    #[must_use]
    pub fn endpoint(self, address: impl Display, interface: &str) -> Self {
        self.table(&format!("[[endpoint]]\naddress = \"{address}\"\ninterface = \"{interface}\""))
    }

    /// A `[[route]]`.
    #[must_use]
    pub fn route(self, to: &str, via: impl Display) -> Self {
        self.table(&format!("[[route]]\nto = \"{to}\"\nvia = \"{via}\""))
    }

    /// Any other tables, as TOML text.
    #[must_use]
    pub fn table(mut self, text: &str) -> Self {
        self.tables += text.trim_end();
        self.tables.push('\n');
        self
    }

    /// The whole file.
    pub(super) fn text(&self, state_dir: &Path, bpf_dir: &Path) -> String {
        // Both paths are the harness's own: plain characters, which a literal string takes as they are.
        let places = format!("state-dir = '{}'\nbpf-dir = '{}'\n", state_dir.display(), bpf_dir.display());
        let mut text = insert_below(&self.given, "[node]", &(places + &self.node));
        let mut datapath = self.datapath.clone();
        if let Some(hook) = uplink_hook().filter(|_| !(text.clone() + &datapath).contains("uplink-hook")) {
            datapath += &format!("uplink-hook = \"{hook}\"\n");
        }
        if !datapath.is_empty() {
            text = insert_below(&text, "[datapath]", &datapath);
        }
        if !self.tables.is_empty() {
            text += &format!("\n{}", self.tables);
        }
        text
    }
}

/// Puts lines at the beginning of a table, which is added at the end if there is none.
fn insert_below(text: &str, header: &str, lines: &str) -> String {
    let is_header = |line: &str| line.split('#').next().is_some_and(|code| code.trim() == header);
    let mut result = String::with_capacity(text.len() + lines.len());
    let mut inserted = false;
    for line in text.split_inclusive('\n') {
        result += line;
        if !line.ends_with('\n') {
            result.push('\n');
        }
        if !inserted && is_header(line) {
            result += lines;
            inserted = true;
        }
    }
    if !inserted {
        let gap = if result.is_empty() { "" } else { "\n" };
        result += &format!("{gap}{header}\n{lines}");
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_built_file_has_every_table() {
        let config = Config::new()
            .node("uplinks", r#"["eth0"]"#)
            .datapath("discover", false)
            .block("172.19.35.0/24")
            .endpoint("172.19.35.2", "cali1")
            .route("172.19.36.0/24", "10.141.0.2");
        let expected = "[node]\nstate-dir = '/s'\nbpf-dir = '/b'\nuplinks = [\"eth0\"]\n\n\
                        [datapath]\ndiscover = false\n\n\
                        [[block]]\ncidr = \"172.19.35.0/24\"\n\
                        [[endpoint]]\naddress = \"172.19.35.2\"\ninterface = \"cali1\"\n\
                        [[route]]\nto = \"172.19.36.0/24\"\nvia = \"10.141.0.2\"\n";
        assert_eq!(config.text(Path::new("/s"), Path::new("/b")), expected);
    }

    #[test]
    fn a_given_file_keeps_its_own_node_table() {
        let text = |given| Config::from_text(given).text(Path::new("/s"), Path::new("/b"));
        let places = "state-dir = '/s'\nbpf-dir = '/b'\n";
        assert_eq!(text("[node] # here\nname = \"a\"\n"), format!("[node] # here\n{places}name = \"a\"\n"));
        assert_eq!(text("[node]"), format!("[node]\n{places}"));
        assert_eq!(text("[bgp]\nasn = 1"), format!("[bgp]\nasn = 1\n\n[node]\n{places}"));
    }
}
