//! The targets over the committed inputs, and over inputs near them: what `cargo test` can do without libFuzzer.

#![expect(
    clippy::expect_used,
    reason = "a test fails by panicking, also in what its functions share"
)]

use holdfast_fuzz::{TARGETS, Target, seeds, target};
use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Inputs made of each committed one.
const MUTATIONS: u64 = 400;

/// More is for whoever fuzzes, not for the repository.
const MAX_FILES: usize = 30;
const MAX_BYTES: usize = 100 * 1024;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The files of `folder/target`, by name; none if there is no such folder.
fn inputs(folder_name: &str, target: &str) -> Vec<(String, Vec<u8>)> {
    let Ok(listed) = fs::read_dir(folder(folder_name).join(target)) else {
        return Vec::new();
    };
    let mut inputs: Vec<_> = listed
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy();
            (name.into_owned(), fs::read(&path).expect("a file"))
        })
        .collect();
    inputs.sort();
    inputs
}

/// Runs a target, and says with which input it failed. The input is small enough to be copied from the report into `regressions/`.
fn run(name: &str, target: Target, what: &str, input: &[u8]) -> bool {
    match catch_unwind(AssertUnwindSafe(|| target(input))) {
        Ok(accepted) => accepted,
        Err(_) => panic!("{name} failed with {what}: {}", input.escape_ascii()),
    }
}

/// A sequence of numbers that is the same each time (xorshift64*).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d);
        (number % bound.max(1) as u64) as usize
    }
}

/// Something near `input`: some bits turned, bytes put in or taken out, the end cut off, or another input's end put on.
fn mutated(input: &[u8], other: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut out = input.to_vec();
    for _ in 0..=numbers.below(3) {
        let at = numbers.below(out.len());
        match numbers.below(8) {
            0 => out.truncate(at),
            1 => {
                out.truncate(at);
                out.extend_from_slice(&other[numbers.below(other.len())..]);
            }
            2 => out.insert(at, [0, 1, 0x7f, 0x80, 0xff][numbers.below(5)]),
            3 if !out.is_empty() => {
                out.remove(at);
            }
            4 => {
                let end = (at + 1 + numbers.below(16)).min(out.len());
                let piece = out[at..end].to_vec();
                let to = numbers.below(out.len());
                out.splice(to..to, piece);
            }
            5 => {
                if let Some(byte) = out.get_mut(at) {
                    *byte = byte.wrapping_add([1, 0xff][numbers.below(2)]);
                }
            }
            _ => {
                if let Some(byte) = out.get_mut(at) {
                    *byte ^= 1 << numbers.below(8);
                }
            }
        }
    }
    out
}

fn smoke(name: &str) {
    let target = target(name).expect("a target");
    for (file, input) in inputs("regressions", name) {
        run(name, target, &format!("regression {file}"), &input);
    }
    let mut corpus = inputs("corpus", name);
    let seeds = seeds::of(name);
    corpus.extend(
        seeds
            .into_iter()
            .map(|(file, input)| (file.to_owned(), input)),
    );
    let mut accepted = 0;
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for (file, input) in &corpus {
        accepted += usize::from(run(name, target, file, input));
        for _ in 0..MUTATIONS {
            let (_, other) = &corpus[numbers.below(corpus.len())];
            let input = mutated(input, other, &mut numbers);
            run(name, target, &format!("a mutation of {file}"), &input);
        }
    }
    // Else the target would be about the first check of all.
    assert!(
        accepted >= 2,
        "of {} inputs {accepted} were accepted",
        corpus.len()
    );
}

macro_rules! smoke_tests {
    ($($name:ident),* $(,)?) => {
        const TESTED: &[&str] = &[$(stringify!($name)),*];
        $(#[test]
        fn $name() {
            smoke(stringify!($name));
        })*
    };
}

smoke_tests![
    auth_records,
    command,
    framing,
    grpc_message,
    headers,
    jwks,
    peer_frames,
    peer_messages,
    raft_log,
    snapshot,
    tls_chain,
    tls_identity,
    token,
];

/// The targets can tell good from bad: these and no others of the seeds are refused.
#[test]
fn of_the_seeds_only_these_are_refused() {
    let refused: Vec<String> = seeds::all()
        .filter(|(name, _, input)| !target(name).expect("a target")(input))
        .map(|(target, name, _)| format!("{target}/{name}"))
        .collect();
    let expected = [
        "headers/rebound",
        "headers/two_hosts",
        // No host.
        "headers/token",
        "headers/bearer",
        "jwks/wrong_alg",
        "jwks/private",
        "jwks/symmetric",
        "jwks/empty",
        "peer_frames/stranger",
        "peer_messages/far_future",
        "peer_messages/beyond_the_log",
        "peer_messages/bytes",
        "raft_log/damaged",
        "tls_chain/for_servers",
        "tls_chain/for_nothing",
        "tls_chain/for_anything",
        "tls_chain/two_uris",
        "tls_chain/stranger",
        "tls_chain/none",
        "tls_identity/two_uris",
        "tls_identity/two_common_names",
        "tls_identity/unreadable_usage",
        "tls_identity/uri_as_common_name",
        "token/theirs_by_ours",
        "token/ours_by_theirs",
        "token/public_key_as_secret",
        "token/none",
        "token/rsa",
        "token/expired",
        "token/doubled",
        "token/critical",
    ];
    assert_eq!(refused, expected);
}

#[test]
fn every_target_has_a_corpus_a_program_and_a_test() {
    let names: BTreeSet<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names.len(), TARGETS.len(), "two targets of one name");
    let tested: BTreeSet<&str> = TESTED.iter().copied().collect();
    assert_eq!(tested, names);
    let listed = |name: &str| -> BTreeSet<String> {
        fs::read_dir(folder(name))
            .into_iter()
            .flatten()
            .map(|entry| entry.expect("an entry").path())
            .map(|path| path.file_stem().expect("a name").to_string_lossy().into())
            .collect()
    };
    let names: BTreeSet<String> = names.into_iter().map(str::to_owned).collect();
    assert_eq!(listed("corpus"), names);
    assert_eq!(listed("fuzz_targets"), names);
    assert!(listed("regressions").is_subset(&names));
    let manifest = fs::read_to_string(folder("Cargo.toml")).expect("the manifest");
    for name in &names {
        let program = fs::read_to_string(folder("fuzz_targets").join(format!("{name}.rs")));
        let program = program.expect("a program");
        assert!(program.contains(&format!("program!(\"{name}\")")), "{name}");
        let path =
            format!("path = \"fuzz_targets/{name}.rs\"\nrequired-features = [\"libfuzzer\"]");
        assert!(manifest.contains(&path), "{name} in the manifest");
    }
}

#[test]
fn the_corpus_is_small() {
    let mut bytes = 0;
    for (name, _) in TARGETS {
        let files = inputs("corpus", name);
        assert!(
            !files.is_empty() && files.len() <= MAX_FILES,
            "{name} has {} files",
            files.len()
        );
        bytes += files.iter().map(|(_, input)| input.len()).sum::<usize>();
    }
    assert!(bytes <= MAX_BYTES, "{bytes} bytes");
}
