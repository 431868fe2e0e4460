//! Which transactions change a key twice, against going through all of their paths.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod model;
mod strategies;

use holdfast_auth::KeyRange;
use holdfast_tenant::request::{Op, Put, Txn};
use holdfast_tenant::{Refusal, validate_put, validate_txn};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use strategies::{op, txn_of};

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_000,
        rng_seed: RngSeed::Fixed(7),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_transaction_is_refused_if_any_path_changes_a_key_twice(txn in txn_of(op())) {
        let puts_are_fine = all_puts(&txn).iter().all(|put| validate_put(put).is_ok());
        prop_assume!(puts_are_fine);
        let twice = paths(&txn).iter().any(|path| collides(path));
        let expected = if twice { Err(Refusal::DuplicateKey) } else { Ok(()) };
        prop_assert_eq!(validate_txn(&txn), expected);
    }
}

fn all_puts(txn: &Txn) -> Vec<&Put> {
    txn.arms()
        .flat_map(|op| match op {
            Op::Put(put) => vec![put],
            Op::Txn(inner) => all_puts(inner),
            _ => vec![],
        })
        .collect()
}

/// The changes of every way through a transaction.
fn paths(txn: &Txn) -> Vec<Vec<&Op>> {
    [&txn.success, &txn.failure]
        .into_iter()
        .flat_map(|arm| {
            let mut ways: Vec<Vec<&Op>> = vec![vec![]];
            // The order in which etcd looks: an arm's deletes, what is nested in it, its puts.
            let mut ordered: Vec<&Op> = arm.iter().collect();
            ordered.sort_by_key(|op| match op {
                Op::DeleteRange(_) => 0,
                Op::Txn(_) => 1,
                Op::Put(_) | Op::Range(_) => 2,
            });
            for op in ordered {
                let steps = match op {
                    Op::Txn(inner) => paths(inner),
                    Op::Range(_) => continue,
                    other => vec![vec![other]],
                };
                ways = ways
                    .iter()
                    .flat_map(|way| {
                        steps
                            .iter()
                            .map(move |step| [way.clone(), step.clone()].concat())
                    })
                    .collect();
            }
            ways
        })
        .collect()
}

fn collides(path: &[&Op]) -> bool {
    path.iter().enumerate().any(|(at, a)| {
        path[at + 1..].iter().any(|b| match (a, b) {
            (Op::Put(a), Op::Put(b)) => a.key == b.key,
            // etcd does not see a put that it has passed when it comes to a delete: both are nested, in this order.
            (Op::Put(_), Op::DeleteRange(_)) => false,
            (Op::DeleteRange(delete), Op::Put(put)) => {
                // etcd does not see a delete without an upper bound here.
                let bounded = !matches!(delete.keys, KeyRange::From(_) | KeyRange::All);
                bounded && delete.keys.contains(&put.key)
            }
            _ => false,
        })
    })
}
