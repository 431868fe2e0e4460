//! Generates the wire types twice: messages with clients, and servers whose watch answers carry events that are encoded already
//! (`src/encoded.rs`). protox compiles the `.proto` files, so no protoc needs to be installed.
//!
//! `peer.proto` is compiled by itself: what members say to each other is no part of the API, and tests that walk the API must not meet it.

use std::{env, error::Error, fs, path::PathBuf};

const FILES: [&str; 7] = ["kv", "auth", "rpc", "lock", "election", "health", "admin"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let files = FILES.map(|name| format!("proto/{name}.proto"));
    let descriptors = protox::compile(files, ["proto"])?;
    fs::write(
        out.join("descriptors.bin"),
        protox::prost::Message::encode_to_vec(&descriptors),
    )?;

    let messages = out.join("messages");
    fs::create_dir_all(&messages)?;
    tonic_prost_build::configure()
        .out_dir(&messages)
        .build_server(false)
        .build_transport(false)
        .bytes(".")
        .compile_fds(descriptors.clone())?;

    let servers = out.join("servers");
    fs::create_dir_all(&servers)?;
    let mut generator = tonic_prost_build::configure()
        .out_dir(&servers)
        .build_client(false)
        .build_transport(false)
        .bytes(".")
        .extern_path(
            ".etcdserverpb.WatchResponse",
            "crate::encoded::WatchResponse",
        );
    for package in [
        "mvccpb",
        "authpb",
        "etcdserverpb",
        "v3lockpb",
        "v3electionpb",
    ] {
        generator = generator.extern_path(format!(".{package}"), format!("crate::{package}"));
    }
    generator
        .extern_path(".grpc.health.v1", "crate::health")
        .extern_path(".holdfast.admin.v1", "crate::admin")
        .compile_fds(descriptors)?;

    let peer = protox::compile(["proto/peer.proto"], ["proto"])?;
    fs::write(
        out.join("peer_descriptors.bin"),
        protox::prost::Message::encode_to_vec(&peer),
    )?;
    tonic_prost_build::configure()
        .out_dir(&messages)
        // Both ends of the protocol frame messages themselves.
        .build_client(false)
        .build_server(false)
        .bytes(".")
        .compile_fds(peer)?;
    Ok(())
}
