//! Who says what is wanted: the configuration, BGP, and the kernel itself.

pub mod bgp;
pub mod kernel;
