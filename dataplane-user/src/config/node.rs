//! `[node]`: who this node is and what belongs to it.

use std::path::PathBuf;

use toml::de::DeTable;

use super::Config;
use super::report::{Placed, Report};
use super::schema::{Form, Schema};
use super::section::Section;
use super::system::host_name;
use super::value;

/// The node itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What it is called; the host name by default.
    pub name: String,
    /// Interfaces towards the fabric or the outside; `None` for those of the default routes.
    pub uplinks: Option<Vec<String>>,
    /// What the names of the host sides of containers' veths begin with.
    pub workload_prefix: String,
    /// Directory of the control socket.
    pub state_dir: PathBuf,
    /// Directory of the pinned maps and links, on a BPF file system; one for each daemon.
    pub bpf_dir: PathBuf,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            name: host_name(),
            uplinks: None,
            workload_prefix: "cali".to_owned(),
            state_dir: PathBuf::from("/run/dataplane"),
            bpf_dir: PathBuf::from("/sys/fs/bpf/dataplane"),
        }
    }
}

/// Directories that the command line names in place of the file's, also when that is read again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// `--state-dir`
    pub state_dir: Option<PathBuf>,
    /// `--bpf-dir`
    pub bpf_dir: Option<PathBuf>,
}

impl Places {
    /// Puts them in place of the configuration's.
    pub fn apply(&self, config: &mut Config) {
        let Node { state_dir, bpf_dir, .. } = &mut config.node;
        for (own, given) in [(state_dir, &self.state_dir), (bpf_dir, &self.bpf_dir)] {
            if let Some(given) = given {
                own.clone_from(given);
            }
        }
    }
}

pub(super) const SCHEMA: Schema = Schema {
    name: "node",
    parent: "",
    form: Form::Single,
    keys: &[
        ("name", "\"node001\""),
        ("uplinks", "[\"eth0\"]"),
        ("workload-prefix", "\"cali\""),
        ("state-dir", "\"/run/dataplane\""),
        ("bpf-dir", "\"/sys/fs/bpf/dataplane\""),
    ],
    sections: &[],
};

/// The section, and where the uplinks stand.
pub(super) struct Draft {
    pub(super) node: Node,
    pub(super) uplinks: Option<Vec<Placed<String>>>,
}

pub(super) fn read<'a>(tree: &'a DeTable<'a>, report: &mut Report<'a>) -> Draft {
    let default = Node::default();
    let section = &mut Section::single(tree, &SCHEMA, report);
    let uplinks = section.some_texts("uplinks", "the interfaces of the default routes", value::interface);
    let workload_prefix = section.text("workload-prefix", value::interface_prefix);
    let node = Node {
        name: section.text("name", value::node_name).map_or(default.name, |name| name.value),
        uplinks: uplinks.as_ref().map(|list| list.iter().map(|uplink| uplink.value.clone()).collect()),
        workload_prefix: workload_prefix.map_or(default.workload_prefix, |prefix| prefix.value),
        state_dir: section
            .text("state-dir", value::state_directory)
            .map_or(default.state_dir, |path| path.value),
        bpf_dir: section.text("bpf-dir", value::absolute_path).map_or(default.bpf_dir, |path| path.value),
    };
    Draft { node, uplinks }
}
