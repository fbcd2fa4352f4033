//! Files that cannot be read.

use std::fs;
use std::path::Path;

use crate::config::{DEFAULT_FILE, load};

#[track_caller]
fn assert_unreadable(file: &Path, (line, column): (usize, usize), part: &str) {
    let failure = load(file).unwrap_err();
    let [error] = &failure.errors[..] else { panic!("{failure}") };
    assert_eq!((error.line, error.column), (line, column), "{error}");
    assert!(error.to_string().starts_with(&format!("{}:{line}:{column}: ", file.display())), "{error}");
    assert!(error.to_string().contains(part), "{error}");
}

#[test]
fn each_has_its_mend() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name| directory.path().join(name);
    fs::write(path("latin-1.toml"), b"# \xc3\xa9t\xc3\xa9\n# \xe9t\xe9\n").unwrap();

    assert_unreadable(&path("missing.toml"), (1, 1), "there is no such file; correct the path of `--config`");
    assert_unreadable(directory.path(), (1, 1), "this is a directory; name a file in it");
    assert_unreadable(&path("latin-1.toml"), (2, 3), "not UTF-8 text from here on; save it as UTF-8");
    assert_unreadable(&path("latin-1.toml").join("below"), (1, 1), "cannot be read");
    if !Path::new(DEFAULT_FILE).exists() {
        assert_unreadable(Path::new(DEFAULT_FILE), (1, 1), "or name another one with `--config FILE`");
    }
}

#[test]
fn a_file_is_compared_with_the_running_system() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("node.toml");
    fs::write(&file, "[node]\nname = \"node001\"\nuplinks = [\"lo\", \"no-such-link\"]\n").unwrap();
    let loaded = load(&file).unwrap();
    assert_eq!(loaded.config.node.name, "node001");
    let warnings: Vec<_> = loaded.warnings.iter().map(|warning| (warning.line, warning.column)).collect();
    assert_eq!(warnings, [(3, 18)]);
}
