//! The daemon on real traffic: each test makes its own nodes and containers from network namespaces, starts
//! the binary as an operator does, and looks at what arrives and at what is counted.

mod netns {
    mod attach;
    mod calico;
    mod commands;
    mod containers;
    mod crash;
    mod detach;
    mod errors;
    mod foreign;
    mod from_kernel;
    mod hooks;
    mod import;
    mod ipsec;
    mod load;
    mod masquerade;
    mod metrics;
    mod monitor;
    mod mtu;
    mod network;
    mod next_hop;
    mod odd;
    mod offload;
    mod operations;
    mod ownership;
    mod places;
    mod reads;
    mod reconcile;
    mod reload;
    mod resilience;
    mod respect;
    mod restart;
    mod service;
    mod slow_path;
    mod spoofing;
    mod uplinks;

    /// Ends the test, reported as skipped, where this process may not make network namespaces.
    macro_rules! require_root {
        () => {{
            fn here() {}
            let name = std::any::type_name_of_val(&here);
            if tests::harness::skip::skip_without_root(name.strip_suffix("::here").unwrap_or(name)) {
                return Ok(());
            }
        }};
    }
    use require_root;

    /// The same where the kernel lacks that feature.
    macro_rules! require_feature {
        ($feature:ident) => {{
            $crate::netns::require_root!();
            fn here() {}
            let name = std::any::type_name_of_val(&here);
            let name = name.strip_suffix("::here").unwrap_or(name);
            if tests::harness::kernel::skip_without(tests::harness::kernel::Feature::$feature, name)? {
                return Ok(());
            }
        }};
    }
    use require_feature;
}
