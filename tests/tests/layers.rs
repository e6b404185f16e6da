//! Data goes down, and so do dependencies: only the edges of the layer drawing exist.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Every crate of the workspace, its folder, and the crates below it that it may stand on.
const EDGES: [(&str, &str, &[&str]); 6] = [
    ("storage-mapping", "storage-mapping", &[]),
    ("multipath", "multipath", &["storage-mapping"]),
    ("volume", "volume", &["storage-mapping"]),
    ("transfer-core", "transfer-core", &["storage-mapping", "volume"]),
    ("system-tests", "tests", &["multipath", "storage-mapping", "transfer-core", "volume"]),
    ("diskwire", "app-cli", &["multipath", "storage-mapping", "system-tests", "transfer-core", "volume"]),
];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package lies in the workspace").to_owned()
}

fn manifest(folder: &Path) -> toml::Table {
    let file = folder.join("Cargo.toml");
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    text.parse().unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Names of everything that a manifest depends on, of every kind and for every target.
fn dependencies(manifest: &toml::Table) -> BTreeSet<String> {
    let kinds = ["dependencies", "dev-dependencies", "build-dependencies"];
    let targets = manifest.get("target").and_then(toml::Value::as_table);
    let tables = targets.into_iter().flat_map(toml::Table::values).filter_map(toml::Value::as_table);
    let of = |table: &toml::Table| -> Vec<String> {
        let found = kinds.iter().filter_map(|kind| table.get(*kind)?.as_table());
        found.flat_map(|table| table.keys().cloned()).collect()
    };
    tables.chain([manifest]).flat_map(of).collect()
}

#[test]
fn only_the_edges_of_the_drawing_exist() {
    let crates: BTreeSet<_> = EDGES.iter().map(|(name, ..)| *name).collect();
    for (name, folder, allowed) in EDGES {
        let manifest = manifest(&workspace().join(folder));
        assert_eq!(manifest["package"]["name"].as_str(), Some(name), "{folder}/Cargo.toml");
        for found in dependencies(&manifest).iter().filter(|found| crates.contains(found.as_str())) {
            assert!(
                allowed.contains(&found.as_str()),
                "{folder}/Cargo.toml: {name} may not depend on {found}; it stands on {allowed:?} only"
            );
        }
    }
}

#[test]
fn the_drawing_names_every_crate() {
    let manifest = manifest(&workspace());
    let members = manifest["workspace"]["members"].as_array().expect("a list");
    let members: BTreeSet<_> = members.iter().filter_map(toml::Value::as_str).collect();
    let drawn: BTreeSet<_> = EDGES.iter().map(|(_, folder, _)| *folder).collect();
    assert_eq!(members, drawn, "name the crate and its edges in this file");
    let shared = manifest["workspace"]["dependencies"].as_table().expect("a table");
    let paths: BTreeMap<_, _> =
        shared.iter().filter_map(|(name, value)| Some((name, value.get("path")?.as_str()?))).collect();
    for (name, path) in paths {
        assert!(EDGES.iter().any(|(known, folder, _)| known == name && *folder == path), "{name} at {path}");
    }
}
