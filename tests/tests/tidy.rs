//! The shape of the house (`docs/ARCHITECTURE.md`, "Code map"): which crate may use which, and what no file may hold.
//!
//! Reads the manifests and the tracked files of this workspace; runs no server.

#![expect(
    clippy::unwrap_used,
    reason = "test code: a panic is the report of a failure"
)]

use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Which crates of ours a crate may use, in any kind of dependency. A crate that is not here has no place in the house.
const ARROWS: &[(&str, &[&str])] = &[
    ("holdfast-audit", &[]),
    ("holdfast-auth", &[]),
    (
        "holdfast-bench",
        &["holdfast-certs", "holdfast-proto", "holdfast-transport"],
    ),
    ("holdfast-certs", &[]),
    ("holdfast-config", &[]),
    ("holdfast-consensus", &["holdfast-storage"]),
    (
        "holdfast-ctl",
        &["holdfast-audit", "holdfast-certs", "holdfast-proto"],
    ),
    (
        "holdfast-fuzz",
        &[
            "holdfast-auth",
            "holdfast-certs",
            "holdfast-config",
            "holdfast-consensus",
            "holdfast-proto",
            "holdfast-storage",
            "holdfast-tenant",
        ],
    ),
    ("holdfast-proto", &[]),
    (
        "holdfast-server",
        &[
            "holdfast-audit",
            "holdfast-auth",
            "holdfast-certs",
            "holdfast-config",
            "holdfast-consensus",
            "holdfast-proto",
            "holdfast-storage",
            "holdfast-tenant",
            "holdfast-transport",
        ],
    ),
    (
        "holdfast-simulator",
        &[
            "holdfast-auth",
            "holdfast-consensus",
            "holdfast-storage",
            "holdfast-tenant",
        ],
    ),
    ("holdfast-storage", &[]),
    ("holdfast-tenant", &["holdfast-auth", "holdfast-storage"]),
    (
        "holdfast-tests",
        &["holdfast-audit", "holdfast-certs", "holdfast-proto"],
    ),
    ("holdfast-transport", &[]),
];

/// Dependencies that few crates may name, with those crates. `deny.toml` keeps the part of it that dependencies of dependencies
/// could break.
const OWNERS: &[(&str, &[&str])] = &[
    // A second place that builds TLS configurations could forget the revocation list.
    ("rustls", &["holdfast-certs"]),
    ("rustls-pki-types", &["holdfast-certs"]),
    ("rustls-webpki", &["holdfast-certs"]),
    ("tokio-rustls", &["holdfast-certs"]),
    ("rcgen", &["holdfast-certs"]),
    ("x509-parser", &["holdfast-certs"]),
    // The store behind the index, and the order of commands, can be exchanged in one place.
    ("fjall", &["holdfast-storage"]),
    ("raft", &["holdfast-consensus"]),
    // Core crates are synchronous and know no wire types: one thread with a seed can run them.
    (
        "tokio",
        &[
            "holdfast-bench",
            "holdfast-certs",
            "holdfast-ctl",
            // It includes files of the server.
            "holdfast-fuzz",
            "holdfast-server",
            "holdfast-tests",
            "holdfast-transport",
        ],
    ),
    (
        "tonic",
        &[
            "holdfast-bench",
            "holdfast-ctl",
            "holdfast-fuzz",
            "holdfast-proto",
            "holdfast-server",
            "holdfast-tests",
        ],
    ),
    (
        "prost",
        &[
            "holdfast-bench",
            "holdfast-fuzz",
            "holdfast-proto",
            "holdfast-server",
            "holdfast-tests",
        ],
    ),
];

/// Names that say nothing: everybody would put things there and import them from there.
const EMPTY_NAMES: &[&str] = &[
    "utils", "util", "common", "helpers", "helper", "misc", "manager",
];

/// A longer source file has more than one purpose.
const MAX_LINES: usize = 700;

/// What no tracked file may hold: places that exist on one machine only. Split here, since this file is tracked, too.
const MACHINE_PATHS: &[&str] = &[concat!("/ho", "me/"), concat!("/ro", "ot/")];

/// Where every dependency comes from.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// The workspace's packages, as cargo reads the manifests.
fn packages() -> Vec<Value> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(root())
        .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo metadata failed");
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap().clone();
    assert!(packages.len() > 1, "{packages:?}");
    packages
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// Each crate of ours with the names of all its direct dependencies.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let names = |package: &Value| {
        let all = package["dependencies"].as_array().unwrap();
        all.iter()
            .map(|dependency| text(dependency, "name").to_owned())
            .collect()
    };
    packages()
        .iter()
        .map(|package| (text(package, "name").to_owned(), names(package)))
        .collect()
}

/// The files that git tracks or would track; without git, all that are not build products. Relative to the root.
fn tracked_files() -> Vec<PathBuf> {
    let git = Command::new("git")
        .current_dir(root())
        // The tree may belong to another user than the one that runs the tests.
        .args(["-c", "safe.directory=*", "ls-files", "-z"])
        .args(["--cached", "--others", "--exclude-standard"])
        .stderr(Stdio::null())
        .output();
    let files: Vec<PathBuf> = match git {
        Ok(output) if output.status.success() => String::from_utf8(output.stdout)
            .unwrap()
            .split_terminator('\0')
            .map(PathBuf::from)
            .filter(|path| root().join(path).is_file())
            .collect(),
        _ => {
            let mut files = Vec::new();
            walk(&root(), &mut files);
            files
        }
    };
    assert!(
        files.contains(&PathBuf::from("Cargo.toml")),
        "no files found: {files:?}"
    );
    files
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap();
        if path.is_dir() {
            if name != "target" && name != ".git" && name != "holdfast-data" {
                walk(&path, files);
            }
        } else {
            files.push(path.strip_prefix(root()).unwrap().to_owned());
        }
    }
}

fn rust_files() -> Vec<PathBuf> {
    let mut files = tracked_files();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    files
}

#[track_caller]
fn none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

#[test]
fn crates_use_only_what_the_arrows_allow() {
    let mut wrong = Vec::new();
    let all = dependencies();
    for (name, uses) in &all {
        let Some((_, allowed)) = ARROWS.iter().find(|(known, _)| known == name) else {
            wrong.push(format!("{name} is not in the table of arrows"));
            continue;
        };
        for used in uses.iter().filter(|used| all.contains_key(*used)) {
            if !allowed.contains(&used.as_str()) {
                wrong.push(format!("{name} -> {used}"));
            }
        }
    }
    none("arrows that the design does not have", &wrong);
    for (name, _) in ARROWS {
        assert!(
            all.contains_key(*name),
            "{name} is in the table and not in the workspace"
        );
    }
}

#[test]
fn few_crates_name_what_must_stay_in_one_place() {
    let all = dependencies();
    let mut wrong = Vec::new();
    for (dependency, owners) in OWNERS {
        let users: Vec<&String> = all
            .iter()
            .filter(|(_, uses)| uses.contains(*dependency))
            .map(|(name, _)| name)
            .collect();
        assert!(
            !users.is_empty(),
            "nobody uses {dependency}: the table is out of date"
        );
        for user in users {
            if !owners.contains(&user.as_str()) {
                wrong.push(format!("{user} names {dependency}"));
            }
        }
    }
    none("dependencies outside their crate", &wrong);
}

#[test]
fn every_crate_takes_the_workspaces_lints() {
    let mut wrong = Vec::new();
    for package in packages() {
        let manifest = fs::read_to_string(text(&package, "manifest_path")).unwrap();
        let mut lines = manifest.lines().skip_while(|line| *line != "[lints]");
        lines.next();
        let section = lines.take_while(|line| !line.starts_with('['));
        if !section.into_iter().any(|line| line == "workspace = true") {
            wrong.push(text(&package, "name").to_owned());
        }
    }
    none("crates without `[lints] workspace = true`", &wrong);
}

#[test]
fn every_crate_root_begins_with_its_purpose() {
    let mut wrong = Vec::new();
    for package in packages() {
        for target in package["targets"].as_array().unwrap() {
            let path = text(target, "src_path");
            let source = fs::read_to_string(path).unwrap();
            let first = source.lines().find(|line| !line.is_empty());
            if !first.is_some_and(|line| line.starts_with("//! ")) {
                wrong.push(path.to_owned());
            }
        }
    }
    none("crate roots without a doc comment at their start", &wrong);
}

#[test]
fn source_files_are_short_and_their_names_say_something() {
    let mut wrong = Vec::new();
    for path in rust_files() {
        if path.components().any(|part| part.as_os_str() == "src") {
            let source = fs::read_to_string(root().join(&path)).unwrap();
            let lines = source.lines().count();
            if lines > MAX_LINES {
                wrong.push(format!("{} has {lines} lines", path.display()));
            }
        }
        let parts = path.with_extension("");
        for part in parts.iter().filter_map(|part| part.to_str()) {
            if EMPTY_NAMES.contains(&part) {
                wrong.push(format!("{}: {part} says nothing", path.display()));
            }
        }
    }
    none(
        &format!("at most {MAX_LINES} lines, and no empty names"),
        &wrong,
    );
}

#[test]
fn no_file_knows_a_machine_or_a_registry() {
    let mut wrong = Vec::new();
    for path in tracked_files() {
        // What is not text was not written by hand.
        let Ok(content) = fs::read_to_string(root().join(&path)) else {
            continue;
        };
        for (number, line) in content.lines().enumerate() {
            if let Some(found) = MACHINE_PATHS.iter().find(|bad| line.contains(**bad)) {
                wrong.push(format!("{}:{}: {found}", path.display(), number + 1));
            }
        }
        let is_cargo_config = path.starts_with(".cargo");
        for line in content.lines().filter(|_| is_cargo_config) {
            if ["[source", "[registr", "replace-with"]
                .iter()
                .any(|bad| line.trim_start().starts_with(bad))
            {
                wrong.push(format!("{}: {line}", path.display()));
            }
        }
    }
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    for line in lock.lines() {
        if let Some(source) = line.strip_prefix("source = ")
            && source.trim_matches('"') != REGISTRY
        {
            wrong.push(format!("Cargo.lock: {source}"));
        }
    }
    none("what only one machine has", &wrong);
}

#[test]
fn the_wire_tables_are_there() {
    // proto/tests/wire.rs compares the API with them; without rows it would compare nothing.
    for (name, rows) in [("services", 40), ("messages", 200), ("enums", 30)] {
        let path = root().join(format!("proto/tests/tables/{name}.tsv"));
        let table = fs::read_to_string(&path).unwrap();
        let found = table.lines().filter(|line| !line.is_empty()).count();
        assert!(found >= rows, "{}: {found} rows", path.display());
    }
}
