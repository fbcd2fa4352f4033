//! Names of Debian's kernels (`6.1.0-56-cloud-amd64`, `7.3.4+deb13-cloud-amd64`), and what a user calls them.

use std::cmp::Ordering;

/// The word for the newest kernel that can be had.
pub(crate) const NEWEST: &str = "newest";

/// Whether a user who says `wanted` may mean this release: the beginning of it, up to the end of a number
/// (`6.1` is `6.1.0-56-cloud-amd64` and not `6.12.117+deb12-cloud-amd64`), or [`NEWEST`].
pub(crate) fn matches(release: &str, wanted: &str) -> bool {
    let rest = release.strip_prefix(wanted);
    wanted == NEWEST || rest.is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_digit()))
}

/// The newest of the releases that `wanted` may mean.
pub(crate) fn best<'a>(releases: impl IntoIterator<Item = &'a String>, wanted: &str) -> Option<&'a String> {
    releases.into_iter().filter(|release| matches(release, wanted)).max_by(|a, b| compare(a, b))
}

/// Older to newer: by the numbers in the names.
pub(crate) fn compare(a: &str, b: &str) -> Ordering {
    numbers(a).cmp(&numbers(b))
}

/// What a release counts as among kernels: its first two numbers, `6.1`.
pub(crate) fn series(release: &str) -> String {
    let (major, minor) = major_minor(release);
    format!("{major}.{minor}")
}

/// The first two numbers of a release; 0 for one that is not there.
pub(crate) fn major_minor(release: &str) -> (u32, u32) {
    let numbers = numbers(release);
    let number = |index: usize| numbers.get(index).copied().unwrap_or(0);
    (number(0), number(1))
}

fn numbers(release: &str) -> Vec<u32> {
    release.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELEASES: [&str; 5] = [
        "6.1.0-9-cloud-amd64",
        "6.1.0-56-cloud-amd64",
        "6.12.117+deb12-cloud-amd64",
        "6.12.107+deb13-cloud-amd64",
        "7.3.4+deb13-cloud-amd64",
    ];

    fn found(wanted: &str) -> Option<String> {
        best(&RELEASES.map(str::to_owned), wanted).cloned()
    }

    #[test]
    fn a_series_is_the_newest_of_its_releases() {
        assert_eq!(found("6.1").as_deref(), Some(RELEASES[1]));
        assert_eq!(found("6.12").as_deref(), Some(RELEASES[2]));
        assert_eq!(found("6.12.107").as_deref(), Some(RELEASES[3]));
        assert_eq!(found("7").as_deref(), Some(RELEASES[4]));
        assert_eq!(found(RELEASES[0]).as_deref(), Some(RELEASES[0]));
        assert_eq!(found(NEWEST).as_deref(), Some(RELEASES[4]));
    }

    #[test]
    fn what_nothing_begins_with_is_not_there() {
        for wanted in ["6", "6.1.0-5", "5.10", "cloud", ""] {
            assert_eq!(found(wanted).is_some(), wanted == "6", "{wanted:?}");
        }
    }

    #[test]
    fn the_series_is_the_first_two_numbers() {
        assert_eq!(RELEASES.map(series), ["6.1", "6.1", "6.12", "6.12", "7.3"]);
        assert_eq!(major_minor("7"), (7, 0));
    }
}
