//! `cargo-deb`, which makes the Debian package from the description in `dataplane-user/Cargo.toml`.

use std::process::Command;

use crate::{process, workspace};

/// The release that the package was made with.
const VERSION: &str = "3.8.0";

/// Why there is no usable one, if there is none.
pub(super) fn problem() -> Option<String> {
    let mut cargo = workspace::cargo();
    let missing = process::output(cargo.args(["deb", "--version"])).is_err();
    missing.then(|| format!("cargo-deb {VERSION} is missing (makes the Debian package)"))
}

/// `cargo install` of it.
pub(super) fn install_command() -> Command {
    let mut command = workspace::cargo();
    command.args(["install", "cargo-deb", "--version", VERSION, "--locked"]);
    for variable in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET"] {
        // Meant for the project, and not for its tools.
        command.env_remove(variable);
    }
    command
}
