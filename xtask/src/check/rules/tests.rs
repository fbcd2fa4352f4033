//! Each rule on text that keeps it and on text that does not.

use super::*;

/// Typed, because a crate that is linked in compares numbers with its own types too.
const NONE: [usize; 0] = [];

fn lines_broken(file: &str, text: &str) -> Vec<usize> {
    breaches(file, text).iter().map(|breach| breach.line).collect()
}

#[test]
fn a_rust_file_has_at_most_400_lines() {
    assert_eq!(lines_broken("a/src/lib.rs", &"// a line\n".repeat(400)), NONE);
    assert_eq!(lines_broken("a/src/lib.rs", &"// a line\n".repeat(401)), [401]);
    assert_eq!(lines_broken("Cargo.lock", &"a line\n".repeat(401)), NONE);
}

#[test]
fn unfinished_and_debugging_code_is_refused_in_rust_alone() {
    for (token, _) in FORBIDDEN_IN_RUST {
        let text = format!("fn f() {{\n    {token}\n}}\n");
        assert_eq!(lines_broken("a/src/lib.rs", &text), [2], "{token}");
        assert_eq!(lines_broken("docs/style.md", &text), NONE, "{token}");
    }
}

#[test]
fn longer_names_are_other_names() {
    let text = format!("my_{0}\nnot{0}\n", FORBIDDEN_IN_RUST[0].0);
    assert_eq!(lines_broken("a/src/lib.rs", &text), NONE);
}

#[test]
fn tests_sleep_in_the_wait_helper_only() {
    let text = "fn f() {\n    std::thread::sleep(pause);\n}\n";
    assert_eq!(lines_broken("tests/tests/netns/reload.rs", text), [2]);
    assert_eq!(lines_broken(WAIT_HELPER, text), NONE);
    assert_eq!(lines_broken("dataplane-user/src/daemon.rs", text), NONE);
    assert_eq!(lines_broken("tests/src/a.rs", "fn nanosleep(_: u64) {}\n"), NONE);
}

#[test]
fn directories_of_one_machine_are_refused_everywhere() {
    for directory in MACHINE_DIRECTORIES {
        for (line, broken) in [
            (format!("cd {directory}/x"), true),
            (format!("\"{directory}\""), true),
            (format!("PATH={directory}/bin"), true),
            (format!("`{directory}`"), true),
            (format!("target{directory}/x"), false),
            (format!("$HOME{directory}"), false),
            (format!("../{directory}"), false),
            (format!("{directory}shop"), false),
        ] {
            assert_eq!(!lines_broken("docs/a.md", &line).is_empty(), broken, "{line}");
        }
    }
}

#[test]
fn hosts_of_registries_are_refused_everywhere() {
    for host in REGISTRY_HOSTS {
        assert_eq!(lines_broken(".ci/run", &format!("set -e\ncurl https://{host}/x\n"))[..1], [2], "{host}");
    }
    assert_eq!(lines_broken("README.md", "cargo install bpf-linker\n"), NONE);
}

#[test]
fn a_breach_tells_the_place_and_the_mend() {
    let text = format!("{}lint)]\n", FORBIDDEN_IN_RUST[3].0);
    let shown = breaches("a/src/lib.rs", &text)[0].to_string();
    assert!(shown.starts_with("a/src/lib.rs:1: ") && shown.contains("#[expect("), "{shown}");
}

#[test]
fn these_files_keep_their_own_rules() {
    assert_eq!(breaches("xtask/src/check/rules.rs", include_str!("../rules.rs")), []);
    assert_eq!(breaches("xtask/src/check/rules/tests.rs", include_str!("tests.rs")), []);
}
