//! What the tests, the demo and the benchmarks are driven by: networks made of namespaces, the daemon
//! started in them, traffic, and packets.

pub mod harness;
