//! "Did you mean …?"

/// The candidate that is most like what was written, if one is like enough.
pub(super) fn nearest<'c>(written: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    // Longer than any name; and the cost of a comparison grows with the length.
    if written.len() > 64 {
        return None;
    }
    let written = normal(written);
    candidates
        .into_iter()
        .filter_map(|candidate| likeness(&written, &normal(candidate)).map(|distance| (distance, candidate)))
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// Case and the choice between `-` and `_` are what people get wrong without having mistyped.
fn normal(name: &str) -> Vec<char> {
    name.chars().flat_map(char::to_lowercase).map(|c| if c == '_' { '-' } else { c }).collect()
}

/// How many slips of the finger lie between two names, if they are few for their length.
fn likeness(written: &[char], candidate: &[char]) -> Option<usize> {
    let distance = distance(written, candidate);
    let shorter = written.len().min(candidate.len());
    let abbreviated = shorter >= 3 && written[..shorter] == candidate[..shorter];
    (distance <= candidate.len().div_ceil(3).min(3) && distance < shorter || abbreviated).then_some(distance)
}

/// Insertions, deletions, substitutions and swaps of neighbours that lead from one to the other
/// (optimal string alignment).
fn distance(from: &[char], to: &[char]) -> usize {
    let mut before = vec![0; to.len() + 1];
    let mut above: Vec<usize> = (0..=to.len()).collect();
    for (row, a) in from.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, b) in to.iter().enumerate() {
            let substitute = above[column] + usize::from(a != b);
            let mut best = substitute.min(above[column + 1] + 1).min(current[column] + 1);
            if row > 0 && column > 0 && *a == to[column - 1] && from[row - 1] == *b {
                best = best.min(before[column - 1] + 1);
            }
            current.push(best);
        }
        before = std::mem::replace(&mut above, current);
    }
    above[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_recognized() {
        let names = ["name", "uplinks", "workload-prefix", "state-dir", "bpf-dir"];
        for (written, meant) in [
            ("nmae", Some("name")),
            ("nam", Some("name")),
            ("uplink", Some("uplinks")),
            ("state_dir", Some("state-dir")),
            ("Bpf-Dir", Some("bpf-dir")),
            ("workload", Some("workload-prefix")),
            ("colour", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(written, names), meant, "{written}");
        }
        assert_eq!(nearest(&"name".repeat(1000), names), None);
    }
}
