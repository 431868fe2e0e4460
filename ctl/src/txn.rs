//! The text grammar of transactions.

use std::io::{self, BufRead};

use bytes::Bytes;
use holdfast_proto::etcdserverpb::{
    Compare, RequestOp, TxnRequest,
    compare::{CompareResult, CompareTarget, TargetUnion},
    request_op::Request,
};

use crate::{
    Exit, Failure,
    cli::{Action, TXN_REQUESTS, read},
    commands::kv,
    go_syntax::{parse_int, quote, split_arguments, unquote_prefix},
};

/// Reads a transaction: three sections, each ended by an empty line. `prompt` is called with what each section holds.
///
/// # Errors
///
/// Input that ends early or does not parse (exit code 3), and requests with wrong arguments (128).
pub fn read_transaction(
    mut input: impl BufRead,
    mut prompt: impl FnMut(&str) -> Result<(), Failure>,
) -> Result<TxnRequest, Failure> {
    prompt("compares:")?;
    let compare = section(&mut input, parse_compare)?;
    prompt("success requests (get, put, del):")?;
    let success = section(&mut input, parse_request)?;
    prompt("failure requests (get, put, del):")?;
    let failure = section(&mut input, parse_request)?;
    Ok(TxnRequest {
        compare,
        success,
        failure,
    })
}

fn section<T>(
    input: &mut impl BufRead,
    parse: impl Fn(&[u8]) -> Result<T, Failure>,
) -> Result<Vec<T>, Failure> {
    let mut items = Vec::new();
    loop {
        let mut line = Vec::new();
        input
            .read_until(b'\n', &mut line)
            .map_err(|error| invalid(error.to_string()))?;
        // A line without its end may be half a line.
        if !line.ends_with(b"\n") {
            return Err(invalid("EOF"));
        }
        match line.trim_ascii() {
            b"" => return Ok(items),
            line => items.push(parse(line)?),
        }
    }
}

/// Parses `target("key") op "value"`.
///
/// # Errors
///
/// Anything else (exit code 3).
pub fn parse_compare(line: &[u8]) -> Result<Compare, Failure> {
    let shown = String::from_utf8_lossy(line);
    let malformed = |detail: &str| invalid(format!("malformed comparison: {shown}{detail}"));
    let Some(open) = line.iter().position(|byte| *byte == b'(') else {
        return Err(malformed(""));
    };
    let (target, rest) = (&line[..open], &line[open + 1..]);
    let parts = compare_parts(rest);
    let [Some(key), Some(operator), Some(value)] = parts else {
        let [key, operator, value] = parts.map(Option::unwrap_or_default);
        return Err(malformed(&format!(
            "; got {}({}) {} {}",
            String::from_utf8_lossy(target),
            quote(&key),
            String::from_utf8_lossy(&operator),
            quote(&value)
        )));
    };
    let number = || {
        parse_int(&String::from_utf8_lossy(&value), 10)
            .map_err(|_| invalid(format!("invalid txn compare request: {shown}")))
    };
    let (target, operand) = match target {
        b"ver" | b"version" => (CompareTarget::Version, TargetUnion::Version(number()?)),
        b"c" | b"create" => (
            CompareTarget::Create,
            TargetUnion::CreateRevision(number()?),
        ),
        b"m" | b"mod" => (CompareTarget::Mod, TargetUnion::ModRevision(number()?)),
        b"val" | b"value" => (CompareTarget::Value, TargetUnion::Value(value.into())),
        // etcdctl documents a decimal id here, unlike everywhere else, and crashes on it.
        b"lease" => (CompareTarget::Lease, TargetUnion::Lease(number()?)),
        _ => {
            let target = String::from_utf8_lossy(target);
            return Err(malformed(&format!(" (unknown target {target})")));
        }
    };
    let result = match operator.as_slice() {
        b"=" => CompareResult::Equal,
        b"!=" => CompareResult::NotEqual,
        b">" => CompareResult::Greater,
        b"<" => CompareResult::Less,
        _ => {
            let operator = String::from_utf8_lossy(&operator);
            return Err(malformed(&format!(" (unknown operator {operator})")));
        }
    };
    Ok(Compare {
        result: result.into(),
        target: target.into(),
        key: key.into(),
        range_end: Bytes::new(),
        target_union: Some(operand),
    })
}

/// The key, the operator and the value of `"key") op "value"`, as far as they are there. A blank must stand around the operator.
fn compare_parts(text: &[u8]) -> [Option<Vec<u8>>; 3] {
    let text = text.trim_ascii_start();
    let Some((key, length)) = unquote_prefix(text) else {
        return [None, None, None];
    };
    let Some(rest) = text[length..].strip_prefix(b")") else {
        return [Some(key), None, None];
    };
    let tail = rest.trim_ascii_start();
    if tail.is_empty() || tail.len() == rest.len() {
        return [Some(key), None, None];
    }
    let end = tail.iter().position(u8::is_ascii_whitespace);
    let (operator, rest) = tail.split_at(end.unwrap_or(tail.len()));
    let value = unquote_prefix(rest.trim_ascii_start()).map(|(value, _)| value);
    [Some(key), Some(operator.to_vec()), value]
}

/// Parses one `get`, `put` or `del` line with its flags.
///
/// # Errors
///
/// A line that is none of these (exit code 3), or wrong arguments (128, or 4 for a flag's value).
pub fn parse_request(line: &[u8]) -> Result<RequestOp, Failure> {
    let shown = String::from_utf8_lossy(line);
    let arguments = split_arguments(line).map_err(|argument| {
        invalid(format!(
            "bad quoting: {}",
            String::from_utf8_lossy(&argument)
        ))
    })?;
    if arguments.len() < 2 {
        return Err(invalid(format!("invalid txn compare request: {shown}")));
    }
    let not_a_request = || invalid(format!("invalid txn request: {shown}"));
    let line = read(&TXN_REQUESTS, &[], &arguments).map_err(|_| not_a_request())?;
    let request = match line.command().action {
        Some(Action::Get) => Request::RequestRange(kv::range_request(&line)?),
        // Standard input holds the transaction, so a value cannot come from there.
        Some(Action::Put) => Request::RequestPut(kv::put_request(&line, io::empty())?),
        Some(Action::Delete) => Request::RequestDeleteRange(kv::delete_request(&line)?),
        _ => return Err(not_a_request()),
    };
    Ok(RequestOp {
        request: Some(request),
    })
}

fn invalid(text: impl Into<String>) -> Failure {
    Failure::new(Exit::InvalidInput, text)
}
