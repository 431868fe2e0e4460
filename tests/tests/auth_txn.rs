//! Random transactions, nested at random, by users with random grants, against a flat model that checks key by key.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "test code: a panic is the report of a failure"
)]

use holdfast_proto::{etcdserverpb as pb, mvccpb::KeyValue};
use holdfast_tests::{
    Guarded,
    Kind::{self, Read, Readwrite, Write},
    Permission, Raw, denied, full_size,
    wire::{IntoOp, always, b, del, del_range, exists, get, put, put_leased, range, txn},
};
use pb::response_op::Response;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::collections::BTreeSet;

/// The keys that requests and grants are made of.
const KEYS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

/// The space of keys, cut into pieces that every range of [`KEYS`] has whole or not at all: `2i` is the key `KEYS[i]` itself, and
/// `2i + 1` all keys between it and the next.
type Pieces = BTreeSet<usize>;

/// A range as the model sees it.
#[derive(Clone, Copy, Debug)]
enum Span {
    Point(usize),
    Between(usize, usize),
    From(usize),
}

impl Span {
    fn random(random: &mut StdRng) -> Self {
        let first = random.random_range(0..KEYS.len());
        match random.random_range(0..10) {
            0..6 => Self::Point(first),
            6..9 if first + 1 < KEYS.len() => {
                Self::Between(first, random.random_range(first + 1..KEYS.len()))
            }
            _ => Self::From(first),
        }
    }

    fn pieces(self) -> Pieces {
        match self {
            Self::Point(key) => [2 * key].into(),
            Self::Between(first, end) => (2 * first..2 * end).collect(),
            Self::From(first) => (2 * first..2 * KEYS.len()).collect(),
        }
    }

    fn wire(self) -> (&'static str, &'static str) {
        match self {
            Self::Point(key) => (KEYS[key], ""),
            Self::Between(first, end) => (KEYS[first], KEYS[end]),
            Self::From(first) => (KEYS[first], "\0"),
        }
    }
}

/// What somebody may do, or what a request needs.
#[derive(Clone, Debug, Default)]
struct Rights {
    read: Pieces,
    write: Pieces,
}

impl Rights {
    fn add(&mut self, kind: Kind, span: Span) {
        if kind != Write {
            self.read.extend(span.pieces());
        }
        if kind != Read {
            self.write.extend(span.pieces());
        }
    }

    fn covers(&self, needed: &Self) -> bool {
        self.read.is_superset(&needed.read) && self.write.is_superset(&needed.write)
    }
}

fn random_kind(random: &mut StdRng) -> Kind {
    [Read, Write, Readwrite, Readwrite][random.random_range(0..4)]
}

fn random_grants(random: &mut StdRng) -> (Vec<Permission<'static>>, Rights) {
    let mut grants: Vec<Permission<'static>> = Vec::new();
    let mut rights = Rights::default();
    for _ in 0..random.random_range(1..10) {
        let (kind, span) = (random_kind(random), Span::random(random));
        let (key, end) = span.wire();
        // The same range again would replace the first grant.
        if !grants.iter().any(|grant| (grant.1, grant.2) == (key, end)) {
            rights.add(kind, span);
            grants.push((kind, key, end));
        }
    }
    (grants, rights)
}

/// Makes one transaction and sums up what it needs.
struct Maker<'a> {
    random: &'a mut StdRng,
    needs: Rights,
    /// Keys that are put, and spans that are deleted: a transaction must not do both to one key.
    puts: BTreeSet<usize>,
    deletes: Pieces,
}

impl Maker<'_> {
    fn compare(&mut self) -> pb::Compare {
        let span = Span::random(self.random);
        self.needs.add(Read, span);
        let (key, end) = span.wire();
        pb::Compare {
            range_end: b(end),
            ..exists(key)
        }
    }

    fn operation(&mut self, depth: usize) -> pb::RequestOp {
        let prev_kv = self.random.random_range(0..3) == 0;
        let also_read = if prev_kv { Readwrite } else { Write };
        match self.random.random_range(0..8) {
            0..3 if depth > 0 => return self.transaction(depth - 1).op(),
            3..5 => {
                let key = self.random.random_range(0..KEYS.len());
                if !self.deletes.contains(&(2 * key)) && self.puts.insert(key) {
                    self.needs.add(also_read, Span::Point(key));
                    return pb::PutRequest {
                        prev_kv,
                        ..put(KEYS[key], "new")
                    }
                    .op();
                }
            }
            5 => {
                let span = Span::random(self.random);
                if !self
                    .puts
                    .iter()
                    .any(|key| span.pieces().contains(&(2 * key)))
                {
                    self.needs.add(also_read, span);
                    self.deletes.extend(span.pieces());
                    let (key, end) = span.wire();
                    return pb::DeleteRangeRequest {
                        prev_kv,
                        ..del_range(key, end)
                    }
                    .op();
                }
            }
            _ => {}
        }
        let span = Span::random(self.random);
        self.needs.add(Read, span);
        let (key, end) = span.wire();
        range(key, end).op()
    }

    fn operations(&mut self, depth: usize) -> Vec<pb::RequestOp> {
        let count = self.random.random_range(0..3);
        (0..count).map(|_| self.operation(depth)).collect()
    }

    fn transaction(&mut self, depth: usize) -> pb::TxnRequest {
        let count = self.random.random_range(0..2);
        let compares = (0..count).map(|_| self.compare()).collect();
        txn(compares, self.operations(depth), self.operations(depth))
    }
}

/// All pairs that an answer shows.
fn shown(answer: &pb::TxnResponse) -> Vec<KeyValue> {
    let mut all = Vec::new();
    for response in &answer.responses {
        match response.response.as_ref().unwrap() {
            Response::ResponseRange(range) => all.extend(range.kvs.iter().cloned()),
            Response::ResponsePut(put) => all.extend(put.prev_kv.iter().cloned()),
            Response::ResponseDeleteRange(delete) => all.extend(delete.prev_kvs.iter().cloned()),
            Response::ResponseTxn(txn) => all.extend(shown(txn)),
        }
    }
    all
}

/// The store's pairs, as `root` sees them: text of key and mod revision.
async fn contents(root: &Raw) -> BTreeSet<(String, i64)> {
    let answer = root.range(range("\0", "\0")).await.unwrap();
    let text = |kv: &KeyValue| String::from_utf8(kv.key.to_vec()).unwrap();
    let pairs = answer.kvs.iter().map(|kv| (text(kv), kv.mod_revision));
    pairs.collect()
}

/// The piece that a key is.
fn piece(key: &str) -> usize {
    let known = KEYS.iter().position(|known| *known == &key[..1]).unwrap();
    2 * known + usize::from(key.len() > 1)
}

/// GHSA-rfx7-8w68-q57q: a nested transaction escaped all checks of keys.
#[tokio::test]
async fn cve_2026_33343_nested_txn_cannot_bypass_permissions() {
    let seed = match std::env::var("HOLDFAST_SEED") {
        Ok(text) => text.parse().unwrap(),
        Err(_) => rand::rng().random(),
    };
    eprintln!("HOLDFAST_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    let user = guarded.user("u", &[]).await;
    let mut fill = Vec::new();
    for key in KEYS {
        fill.extend([put(key, "old").op(), put(&format!("{key}x"), "old").op()]);
    }
    let rounds = if full_size() { 1_000 } else { 40 };
    let (mut granted, mut refused) = (0, 0);
    for _ in 0..rounds {
        let (grants, rights) = random_grants(&mut random);
        root.role_set("u", &grants).await;
        for _ in 0..15 {
            let depth = random.random_range(0..6);
            let mut maker = Maker {
                random: &mut random,
                needs: Rights::default(),
                puts: BTreeSet::new(),
                deletes: Pieces::new(),
            };
            let request = maker.transaction(depth);
            let needs = maker.needs;
            root.txn(always(fill.clone())).await.unwrap();
            let before = contents(root).await;
            let answer = user.txn(request.clone()).await;
            let after = contents(root).await;
            let told = || format!("{request:#?}\nwith {grants:?}");
            if !rights.covers(&needs) {
                refused += 1;
                assert!(answer.is_err(), "permitted: {}", told());
                denied(answer);
                assert_eq!(before, after, "{}", told());
                continue;
            }
            granted += 1;
            let answer = answer.unwrap_or_else(|status| panic!("{status:?}: {}", told()));
            // Not only what was asked, also what came of it is inside of what was granted.
            for kv in shown(&answer) {
                let key = std::str::from_utf8(&kv.key).unwrap();
                assert!(rights.read.contains(&piece(key)), "{key}: {}", told());
            }
            for (key, _) in before.symmetric_difference(&after) {
                assert!(rights.write.contains(&piece(key)), "{key}: {}", told());
            }
        }
    }
    assert!(
        granted.min(refused) * 20 > rounds * 15,
        "{granted} granted, {refused} refused: the test says little"
    );
}

#[tokio::test]
async fn cve_2026_33343_one_narrow_user_at_every_depth() {
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    root.put(put("secret", "value")).await.unwrap();
    let user = guarded.user("u", &[(Readwrite, "u", "")]).await;
    let forbidden: [(&str, pb::TxnRequest); 7] = [
        ("read", always(vec![get("secret").op()])),
        ("write", always(vec![put("secret", "mine").op()])),
        ("delete", always(vec![del("secret").op()])),
        ("compare", txn(vec![exists("secret")], vec![], vec![])),
        (
            "the other arm",
            txn(vec![], vec![], vec![get("secret").op()]),
        ),
        (
            "beside a permitted one",
            always(vec![put("u", "1").op(), get("secret").op()]),
        ),
        ("from a key on", always(vec![range("u", "\0").op()])),
    ];
    for (what, innermost) in forbidden {
        let mut request = innermost;
        for depth in 0..12 {
            eprintln!("{what} at depth {depth}");
            denied(user.txn(request.clone()).await);
            request = match depth % 3 {
                0 => always(vec![get("u").op(), request.op()]),
                1 => txn(vec![exists("u")], vec![], vec![request.op()]),
                _ => always(vec![txn(vec![], vec![], vec![request.op()]).op()]),
            };
        }
    }
    assert_eq!(root.revision().await, 2);
    // Depth alone is no reason.
    let mut request = always(vec![put("u", "1").op()]);
    for _ in 0..12 {
        request = always(vec![request.op()]);
    }
    user.txn(request).await.unwrap();
    assert_eq!(root.revision().await, 3);
}

/// Inside of transactions the previous value and the lease of a put were not checked.
#[tokio::test]
async fn cve_2026_44283_prev_kv_and_lease_of_a_put_in_a_txn_are_checked() {
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    root.put(put("w", "secret")).await.unwrap();
    for (id, key) in [(10, "foreign"), (11, "u")] {
        let lease = pb::LeaseGrantRequest { ttl: 600, id };
        root.grant(lease).await.unwrap();
        root.put(put_leased(key, "1", id)).await.unwrap();
    }
    let user = guarded
        .user("u", &[(Write, "w", ""), (Readwrite, "u", "")])
        .await;
    let prev = || pb::PutRequest {
        prev_kv: true,
        ..put("w", "mine")
    };
    let prev_delete = || pb::DeleteRangeRequest {
        prev_kv: true,
        ..del("w")
    };
    let leased = || put_leased("w", "mine", 10);
    let before = root.revision().await;
    for forbidden in [prev().op(), prev_delete().op(), leased().op()] {
        let inner = always(vec![forbidden.clone()]);
        for request in [
            inner.clone(),
            txn(vec![], vec![], vec![forbidden.clone()]),
            always(vec![inner.clone().op()]),
            txn(vec![], vec![], vec![inner.clone().op()]),
            txn(
                vec![exists("u")],
                vec![get("u").op()],
                vec![txn(vec![], vec![], vec![forbidden.clone()]).op()],
            ),
        ] {
            eprintln!("{request:?}");
            denied(user.txn(request).await);
        }
    }
    denied(user.put(prev()).await);
    denied(user.put(leased()).await);
    denied(user.delete(prev_delete()).await);
    assert_eq!(root.revision().await, before);
    // A lease whose keys the user may write.
    let request = always(vec![always(vec![put_leased("w", "mine", 11).op()]).op()]);
    user.txn(request).await.unwrap();
}
