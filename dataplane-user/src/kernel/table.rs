//! The writer of the route table.
