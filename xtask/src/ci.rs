//! `cargo xtask ci`: the tests from a clean start to a clean end.

use anyhow::Result;
use devproxy_tests::node::{Node, Place};

use crate::test;

pub(crate) fn run() -> Result<()> {
    Node::down(Place::First)?;
    let result = test::run(&test::Arguments::all());
    // Also after a failure; the failure is what is told.
    let ended = Node::down(Place::First);
    result.and(ended)
}
