//! The daemon beside, and against, other implementations of the protocols, each in a namespace of its own.

mod interop {
    mod bgp;
    mod bird;
    mod import;

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

    /// Makes tests of functions that are generic over the routing daemon, one for each daemon.
    macro_rules! with_daemons {
        ($($module:ident: $daemon:ident),+ => $tests:tt) => {
            $(mod $module {
                $crate::interop::with_daemons!(@ $daemon, $tests);
            })+
        };
        (@ $daemon:ident, [$($test:ident),+ $(,)?]) => {
            $(#[test]
            fn $test() -> anyhow::Result<()> {
                $crate::interop::require_root!();
                super::$test::<tests::harness::$daemon>()
            })+
        };
    }
    use with_daemons;
}
