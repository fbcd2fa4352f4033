//! `[timeouts]`: how long a translation lives without a packet.

use dataplane_common::flow::{record::ticks, state::State};
use toml::de::DeTable;

use super::report::Report;
use super::schema::{Form, Schema};
use super::section::Section;

/// Seconds for each state of a translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts([u32; State::ALL.len()]);

/// A week: a slip of the finger must not keep ports for ever.
const MOST_SECONDS: u32 = 7 * 24 * 3600;

impl Default for Timeouts {
    fn default() -> Self {
        let mut seconds = [0; State::ALL.len()];
        for state in State::ALL {
            seconds[*state as usize] = state.default_timeout();
        }
        Self(seconds)
    }
}

impl Timeouts {
    /// Seconds that a translation in this state lives without a packet.
    pub fn seconds(&self, state: State) -> u32 {
        self.0[state as usize]
    }

    /// The same in ticks, for every state.
    pub(super) fn ticks(&self) -> Vec<(State, u32)> {
        State::ALL.iter().map(|state| (*state, ticks(self.seconds(*state)))).collect()
    }
}

/// The key of a state is its name with `-seconds` behind.
pub(super) const SCHEMA: Schema = Schema {
    name: "timeouts",
    parent: "",
    form: Form::Single,
    keys: &[
        ("tcp-opening-seconds", "120"),
        ("tcp-answered-seconds", "60"),
        ("tcp-established-seconds", "7440"),
        ("tcp-closing-seconds", "120"),
        ("tcp-closed-seconds", "120"),
        ("tcp-reset-seconds", "240"),
        ("udp-unreplied-seconds", "30"),
        ("udp-replied-seconds", "120"),
        ("icmp-echo-seconds", "30"),
        ("tcp-aborted-seconds", "10"),
    ],
    sections: &[],
};

/// The section, and where its first key stands.
pub(super) struct Draft {
    pub(super) timeouts: Timeouts,
    pub(super) at: Option<usize>,
}

pub(super) fn read<'a>(tree: &'a DeTable<'a>, report: &mut Report<'a>) -> Draft {
    let section = &mut Section::single(tree, &SCHEMA, report);
    let at = SCHEMA.keys.iter().filter_map(|(key, _)| section.place(key)).min();
    let mut timeouts = Timeouts::default();
    for (state, (key, _)) in State::ALL.iter().skip(1).zip(SCHEMA.keys) {
        if let Some(seconds) = section.number(key, 1..=MOST_SECONDS) {
            timeouts.0[*state as usize] = seconds.value;
        }
    }
    Draft { timeouts, at }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_its_key_and_its_default() {
        assert_eq!(SCHEMA.keys.len() + 1, State::ALL.len());
        for (state, (key, example)) in State::ALL.iter().skip(1).zip(SCHEMA.keys) {
            assert_eq!(*key, format!("{}-seconds", state.name()));
            assert_eq!(*example, state.default_timeout().to_string());
        }
    }
}
