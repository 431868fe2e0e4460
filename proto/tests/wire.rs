//! Compares our descriptors with the tables of etcd's wire format, row by row, in both directions.

use holdfast_proto::FILE_DESCRIPTOR_SET;
use prost::Message;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FileDescriptorSet, field_descriptor_proto::Type,
};
use std::collections::BTreeSet;

/// The packages that the tables cover; `grpc.health.v1` is not etcd's.
const PACKAGES: [&str; 5] = [
    "authpb",
    "etcdserverpb",
    "mvccpb",
    "v3electionpb",
    "v3lockpb",
];

fn table(text: &str) -> BTreeSet<String> {
    text.lines()
        .skip(1)
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

fn files() -> Vec<prost_types::FileDescriptorProto> {
    let Ok(set) = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET) else {
        panic!("our own descriptors do not decode");
    };
    set.file
        .into_iter()
        .filter(|file| PACKAGES.contains(&file.package()))
        .collect()
}

fn check(name: &str, expected: BTreeSet<String>, found: BTreeSet<String>) {
    let missing: Vec<_> = expected.difference(&found).collect();
    let extra: Vec<_> = found.difference(&expected).collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "{name}: rows of the table that we lack: {missing:#?}\nrows of ours that the table lacks: {extra:#?}"
    );
    assert!(!expected.is_empty(), "{name}: the table is empty");
}

fn type_name(kind: Type, reference: &str) -> String {
    match kind {
        Type::Message | Type::Enum => reference.trim_start_matches('.').to_owned(),
        other => format!("{other:?}").to_lowercase(),
    }
}

fn message_rows(package: &str, message: &DescriptorProto, rows: &mut BTreeSet<String>) {
    let name = format!("{package}.{}", message.name());
    if message.field.is_empty() {
        rows.insert(format!("{name}\t-\t-\t-\t-\t-"));
    }
    for field in &message.field {
        let oneof = field
            .oneof_index
            .map_or("-", |index| message.oneof_decl[index as usize].name());
        let label = match field.label() {
            prost_types::field_descriptor_proto::Label::Repeated => "repeated",
            _ => "singular",
        };
        let kind = type_name(field.r#type(), field.type_name());
        rows.insert(format!(
            "{name}\t{}\t{}\t{kind}\t{label}\t{oneof}",
            field.name(),
            field.number()
        ));
    }
}

fn enum_rows(scope: &str, item: &EnumDescriptorProto, rows: &mut BTreeSet<String>) {
    for value in &item.value {
        rows.insert(format!(
            "{scope}.{}\t{}\t{}",
            item.name(),
            value.name(),
            value.number()
        ));
    }
}

#[test]
fn messages_equal_the_table() {
    let mut rows = BTreeSet::new();
    for file in files() {
        for message in &file.message_type {
            message_rows(file.package(), message, &mut rows);
        }
    }
    check("messages", table(include_str!("tables/messages.tsv")), rows);
}

#[test]
fn enums_equal_the_table() {
    let mut rows = BTreeSet::new();
    for file in files() {
        for item in &file.enum_type {
            enum_rows(file.package(), item, &mut rows);
        }
        for message in &file.message_type {
            for item in &message.enum_type {
                let scope = format!("{}.{}", file.package(), message.name());
                enum_rows(&scope, item, &mut rows);
            }
        }
    }
    check("enums", table(include_str!("tables/enums.tsv")), rows);
}

#[test]
fn services_equal_the_table() {
    let stream = |is_stream: bool, name: &str| {
        let prefix = if is_stream { "stream " } else { "" };
        format!("{prefix}{}", name.trim_start_matches('.'))
    };
    let mut rows = BTreeSet::new();
    for file in files() {
        for service in &file.service {
            for method in &service.method {
                rows.insert(format!(
                    "{}.{}\t{}\t{}\t{}",
                    file.package(),
                    service.name(),
                    method.name(),
                    stream(method.client_streaming(), method.input_type()),
                    stream(method.server_streaming(), method.output_type()),
                ));
            }
        }
    }
    let expected = table(include_str!("tables/services.tsv"))
        .into_iter()
        .map(|row| {
            row.rsplit_once('\t')
                .map_or("", |(rest, _)| rest)
                .to_owned()
        })
        .collect();
    check("services", expected, rows);
}
