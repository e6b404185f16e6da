//! The table of deliberately broken builds fits the sources. Nothing is built here: the program `sabotage`
//! does that.

use std::collections::BTreeSet;

use system_tests::sabotage::{load, switched, workspace};

#[test]
fn every_guard_is_where_the_table_says() {
    let workspace = workspace();
    let rows = load(&workspace).unwrap_or_else(|error| panic!("{error}"));
    assert!(rows.len() >= 14, "the table is where this test looks");
    let names: BTreeSet<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names.len(), rows.len(), "names differ");
    if let Err(error) = switched(&rows, &workspace) {
        panic!("correct tests/sabotage.toml, so that it breaks the same guard: {error}");
    }
}
