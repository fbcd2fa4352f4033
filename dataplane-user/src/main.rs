//! `dataplane`: see the library.
fn main() {}
