//! The paths to a prefix, small: there are as many as routes.

use crate::source::bgp::{attributes::AttributesId, filter::Refusal};

/// Names a peer in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u16);

/// What one peer said about one prefix; eight bytes, of which there are as many as routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// The route's attributes.
    pub attributes: AttributesId,
    /// Who said it.
    pub peer: PeerId,
    /// Why it is not used.
    pub refused: Option<Refusal>,
    /// From before the peer restarted, and not yet said again (RFC 4724).
    pub stale: bool,
}

impl Path {
    /// A path that was just learned.
    pub fn new(attributes: AttributesId, peer: PeerId, refused: Option<Refusal>) -> Self {
        Self { attributes, peer, refused, stale: false }
    }
}

/// The paths to a prefix, the best first; nearly always it is one.
#[derive(Clone, Debug)]
pub enum Paths {
    /// The one.
    One(Path),
    /// More.
    #[expect(clippy::box_collection, reason = "a vector in place would make every prefix pay for the few")]
    Many(Box<Vec<Path>>),
}

impl Paths {
    /// All of them.
    pub fn as_slice(&self) -> &[Path] {
        match self {
            Self::One(path) => std::slice::from_ref(path),
            Self::Many(paths) => paths,
        }
    }

    /// All of them, to be changed.
    pub fn as_mut_slice(&mut self) -> &mut [Path] {
        match self {
            Self::One(path) => std::slice::from_mut(path),
            Self::Many(paths) => paths,
        }
    }

    /// One more, which comes last.
    pub fn push(&mut self, path: Path) {
        match self {
            Self::One(first) => *self = Self::Many(Box::new(vec![*first, path])),
            Self::Many(paths) => paths.push(path),
        }
    }

    /// Keeps what the condition holds for; says whether anything is left.
    pub fn retain(&mut self, mut keep: impl FnMut(&mut Path) -> bool) -> bool {
        match self {
            Self::One(path) => keep(path),
            Self::Many(paths) => {
                paths.retain_mut(keep);
                match paths[..] {
                    [] => false,
                    [path] => {
                        *self = Self::One(path);
                        true
                    }
                    _ => true,
                }
            }
        }
    }
}

/// How many routes of a peer the table holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All.
    pub received: usize,
    /// Those refused, by [`Refusal`].
    pub refused: [usize; Refusal::ALL.len()],
    /// Those that are stale.
    pub stale: usize,
}

impl Counts {
    /// Those that may be used.
    pub fn accepted(&self) -> usize {
        self.received - self.refused.iter().sum::<usize>()
    }

    /// A path comes.
    pub fn add(&mut self, path: &Path) {
        self.received += 1;
        self.stale += usize::from(path.stale);
        if let Some(refusal) = path.refused {
            self.refused[refusal as usize] += 1;
        }
    }

    /// A path goes.
    pub fn remove(&mut self, path: &Path) {
        self.received -= 1;
        self.stale -= usize::from(path.stale);
        if let Some(refusal) = path.refused {
            self.refused[refusal as usize] -= 1;
        }
    }
}
