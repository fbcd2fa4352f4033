//! The one module that speaks rtnetlink.
