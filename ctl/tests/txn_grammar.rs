//! The text grammar of transactions.

use holdfast_ctl::{
    Exit, Failure,
    txn::{parse_compare, parse_request, read_transaction},
};
use holdfast_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest,
    compare::{CompareResult, CompareTarget, TargetUnion},
    range_request::{SortOrder, SortTarget},
    request_op::Request,
};

fn compare(
    result: CompareResult,
    target: CompareTarget,
    key: &'static [u8],
    operand: TargetUnion,
) -> Compare {
    Compare {
        result: result.into(),
        target: target.into(),
        key: key.into(),
        range_end: Default::default(),
        target_union: Some(operand),
    }
}

#[test]
fn compares() {
    use {CompareResult as R, CompareTarget as T, TargetUnion as U};
    for (line, expected) in [
        (
            r#"mod("k") > "0""#,
            compare(R::Greater, T::Mod, b"k", U::ModRevision(0)),
        ),
        (
            r#"m("k") < "7""#,
            compare(R::Less, T::Mod, b"k", U::ModRevision(7)),
        ),
        (
            r#"create("k") = "0""#,
            compare(R::Equal, T::Create, b"k", U::CreateRevision(0)),
        ),
        (
            r#"c("k") != "-1""#,
            compare(R::NotEqual, T::Create, b"k", U::CreateRevision(-1)),
        ),
        (
            r#"version("k") = "3""#,
            compare(R::Equal, T::Version, b"k", U::Version(3)),
        ),
        (
            r#"ver("k") = "3""#,
            compare(R::Equal, T::Version, b"k", U::Version(3)),
        ),
        (
            r#"value("k") = "a b""#,
            compare(R::Equal, T::Value, b"k", U::Value("a b".into())),
        ),
        (
            "val(`k`) = `\\n`",
            compare(R::Equal, T::Value, b"k", U::Value("\\n".into())),
        ),
        (
            r#"val( "a\x41\xff")   =   "q\n" the rest is ignored"#,
            compare(R::Equal, T::Value, b"aA\xff", U::Value("q\n".into())),
        ),
        (
            r#"lease("k") = "1234""#,
            compare(R::Equal, T::Lease, b"k", U::Lease(1234)),
        ),
    ] {
        assert_eq!(parse_compare(line.as_bytes()).unwrap(), expected, "{line}");
    }
}

#[test]
fn malformed_compares() {
    for (line, text) in [
        ("mod", "malformed comparison: mod"),
        (
            r#"mod("k")>"0""#,
            r#"malformed comparison: mod("k")>"0"; got mod("k")  """#,
        ),
        (
            r#"mod("k") > 0"#,
            r#"malformed comparison: mod("k") > 0; got mod("k") > """#,
        ),
        (
            r#"mod(k) > "0""#,
            r#"malformed comparison: mod(k) > "0"; got mod("")  """#,
        ),
        (
            r#"mod("k" ) > "0""#,
            r#"malformed comparison: mod("k" ) > "0"; got mod("k")  """#,
        ),
        (
            r#"foo("k") = "0""#,
            r#"malformed comparison: foo("k") = "0" (unknown target foo)"#,
        ),
        (
            r#"mod("k") == "0""#,
            r#"malformed comparison: mod("k") == "0" (unknown operator ==)"#,
        ),
        (
            r#"mod("k") = "x""#,
            r#"invalid txn compare request: mod("k") = "x""#,
        ),
        (
            r#"ver("k") = "9223372036854775808""#,
            r#"invalid txn compare request: ver("k") = "9223372036854775808""#,
        ),
    ] {
        let failure = parse_compare(line.as_bytes()).unwrap_err();
        assert_eq!(failure.text(), Some(text));
        assert_eq!(failure.exit(), Exit::InvalidInput);
    }
}

#[test]
fn requests() {
    let get = |key: &'static str, end: &'static str| RangeRequest {
        key: key.into(),
        range_end: end.into(),
        ..RangeRequest::default()
    };
    for (line, expected) in [
        ("get k", Request::RequestRange(get("k", ""))),
        ("get a b", Request::RequestRange(get("a", "b"))),
        ("get --prefix a", Request::RequestRange(get("a", "b"))),
        ("get a --from-key", Request::RequestRange(get("a", "\0"))),
        (
            "get 'a b' --order descend --sort-by MODIFY --limit 2 --consistency s",
            Request::RequestRange(RangeRequest {
                limit: 2,
                sort_order: SortOrder::Descend.into(),
                sort_target: SortTarget::Mod.into(),
                serializable: true,
                ..get("a b", "")
            }),
        ),
        // Ascending by key is how keys come anyway.
        ("get k --order ASCEND", Request::RequestRange(get("k", ""))),
        (
            r#"put k "a\"b" --lease=7b --prev-kv"#,
            Request::RequestPut(PutRequest {
                key: "k".into(),
                value: "a\"b".into(),
                lease: 123,
                prev_kv: true,
                ..PutRequest::default()
            }),
        ),
        (
            "p k --ignore-value --ignore-lease",
            Request::RequestPut(PutRequest {
                key: "k".into(),
                ignore_value: true,
                ignore_lease: true,
                ..PutRequest::default()
            }),
        ),
        (
            "put k -- -v",
            Request::RequestPut(PutRequest {
                key: "k".into(),
                value: "-v".into(),
                ..PutRequest::default()
            }),
        ),
        (
            "del --prefix \"\" --prev-kv",
            Request::RequestDeleteRange(DeleteRangeRequest {
                key: "\0".into(),
                range_end: "\0".into(),
                prev_kv: true,
            }),
        ),
    ] {
        let parsed = parse_request(line.as_bytes()).unwrap();
        assert_eq!(parsed.request, Some(expected), "{line}");
    }
}

#[test]
fn malformed_requests() {
    for (line, exit) in [
        ("get", Exit::InvalidInput),
        ("frobnicate k", Exit::InvalidInput),
        ("put k v --bad", Exit::InvalidInput),
        (r#"put k "\q""#, Exit::InvalidInput),
        ("put k", Exit::BadArguments),
        ("del a b c", Exit::BadArguments),
        ("get a --prefix --from-key", Exit::BadArguments),
        ("get k --sort-by size", Exit::BadFeature),
        ("get k --min-mod-rev 5 --max-mod-rev 3", Exit::BadFeature),
    ] {
        assert_eq!(
            parse_request(line.as_bytes()).unwrap_err().exit(),
            exit,
            "{line}"
        );
    }
}

#[test]
fn a_transaction_has_three_sections() {
    let mut prompts = Vec::new();
    let prompt = |text: &str| -> Result<(), Failure> {
        prompts.push(text.to_owned());
        Ok(())
    };
    let input =
        "mod(\"a\") = \"0\"\n  ver(\"b\") > \"1\"  \n\nput a 1\n\nget a\ndel a\nget b\n\nignored";
    let txn = read_transaction(input.as_bytes(), prompt).unwrap();
    assert_eq!(
        (txn.compare.len(), txn.success.len(), txn.failure.len()),
        (2, 1, 3)
    );
    assert_eq!(
        prompts,
        [
            "compares:",
            "success requests (get, put, del):",
            "failure requests (get, put, del):"
        ]
    );

    let cut = read_transaction(&b"\nput a 1\n\nput b 1"[..], |_| Ok(())).unwrap_err();
    assert_eq!((cut.exit(), cut.text()), (Exit::InvalidInput, Some("EOF")));
}
