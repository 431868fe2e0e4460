//! `docs/SECURITY_CASES.md` names, for each case of what went wrong elsewhere and of our own list, tests that are there.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "test code: a panic is the report of a failure"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The cases. A row of the page has one of these in its first column.
const CASES: &[&str] = &[
    // etcd's advisories and issues
    "CVE-2026-73499",
    "CVE-2026-73500",
    "CVE-2026-59818",
    "CVE-2026-44283",
    "CVE-2026-33343",
    "CVE-2026-33413",
    "etcd#21466, #21663",
    "CVE-2023-32082",
    "CVE-2021-28235",
    "CVE-2018-16886",
    "CVE-2018-1098",
    "CVE-2018-1099",
    "etcd#13300, #19828",
    "etcd#9713, #11735",
    "etcd#14571",
    "etcd#20580",
    // its audits of 2020 and 2022
    "Directories with wrong permissions",
    "Log records of absurd index, length or type",
    "Least length of passwords",
    "Negative and absurd numbers",
    "Credentials in the log",
    "Text that is not UTF-8",
    "Unknown enum values, missing oneofs",
    // ours
    "Streams that are never read",
    "HTTP/2: rapid reset",
    "HTTP/2: continuation flood",
    "HTTP/2: huge headers",
    "HTTP/2: zero windows",
    "HTTP/2: ping flood",
    "Certificate: wrong CA",
    "Certificate: expired",
    "Certificate: not yet valid",
    "Certificate: wrong EKU",
    "Certificate: no SAN",
    "Certificate: two URI SANs",
    "Certificate: CA as leaf",
    "Certificate: peer's on the client port",
    "Certificate: client's on the peer port",
    "Certificate: CN of another user",
    "Certificate: TLS 1.2",
    "Certificate: resumption after revocation",
    "Token: alg none",
    "Token: public key as secret",
    "Token: other tenant",
    "Token: other audience",
    "Token: expired",
    "Token: old kid",
    "Token: future iat",
    "Token: 1 MiB",
    "Token: deleted user",
    "Token: user made again",
    "Password: unknown user or wrong password",
    "Password: 1,000 guesses",
    "Password: 10 MiB",
    "Peer: plaintext and other protocols",
    "Peer: certificate of another member",
    "Peer: member of another cluster",
    "Peer: oversized and malformed batches",
    "Peer: raft messages that no member sends",
    "Peer: commands that cannot be applied",
    "Peer: calls without bounds",
    "Peer: replayed and forged snapshots",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Case and tests of each row.
fn rows() -> Vec<(String, Vec<String>)> {
    let page = fs::read_to_string(root().join("docs/SECURITY_CASES.md")).unwrap();
    let mut rows = Vec::new();
    for line in page.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [case, _, tests] = cells[..] else {
            panic!("not three columns: {line}");
        };
        if case == "case" || case.starts_with("---") {
            continue;
        }
        // Names stand between backticks.
        let tests = tests.split('`').skip(1).step_by(2).map(str::to_owned);
        rows.push((case.to_owned(), tests.collect()));
    }
    rows
}

/// The tests of a file: functions with an attribute `test`.
fn tests_of(file: &Path) -> BTreeSet<String> {
    let source = fs::read_to_string(file).unwrap_or_default();
    let mut found = BTreeSet::new();
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[test") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some((_, rest)) = line.split_once("fn ")
            && std::mem::take(&mut is_test)
        {
            let name = rest.split(['(', '<']).next().unwrap_or_default();
            found.insert(name.to_owned());
        }
    }
    found
}

#[test]
fn every_case_has_tests_and_every_test_is_there() {
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    let mut files = BTreeMap::new();
    for (case, tests) in rows() {
        if !CASES.contains(&&*case) {
            wrong.push(format!("{case:?} is not in the list of cases"));
        }
        if !seen.insert(case.clone()) {
            wrong.push(format!("{case:?} has two rows"));
        }
        if tests.is_empty() {
            wrong.push(format!("{case:?} has no test"));
        }
        for test in tests {
            let Some((file, name)) = test.split_once("::") else {
                wrong.push(format!("{case:?}: {test:?} is not file::test"));
                continue;
            };
            let path = root().join(file);
            let known = files
                .entry(file.to_owned())
                .or_insert_with(|| tests_of(&path));
            if !known.contains(name) {
                wrong.push(format!("{case:?}: there is no test {name} in {file}"));
            }
        }
    }
    for case in CASES {
        if !seen.contains(*case) {
            wrong.push(format!("{case:?} has no row"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_case_is_performed_against_the_binary() {
    // Tests of the parts stand beside them; on their own they would not show that the parts are put together.
    let outside = ["tests/tests/", "server/tests/"];
    let missing: Vec<_> = rows()
        .into_iter()
        .filter(|(_, tests)| {
            !tests
                .iter()
                .any(|test| outside.iter().any(|at| test.starts_with(at)))
        })
        .map(|(case, _)| case)
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}
