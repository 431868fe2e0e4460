//! Calls of any method by its path, with messages as bytes; and the list of all methods there are.

use crate::{Raw, soon};
use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// Messages as they are on the wire.
#[derive(Clone, Copy, Default)]
struct AsIs;

impl Encoder for AsIs {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for AsIs {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

impl Codec for AsIs {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Raw {
    /// Calls the method at `path` (`/package.Service/Method`) of whatever kind with one message, and gives the first message of
    /// the answer: none if it ended without.
    pub async fn call_anything(&self, path: &str, message: Bytes) -> Result<Option<Bytes>, Status> {
        let mut client = tonic::client::Grpc::new(self.carrier.clone());
        client.ready().await.expect("the connection is there");
        let path = path.parse().expect("a path");
        let first = async {
            let answer = client.server_streaming(tonic::Request::new(message), path, AsIs);
            answer.await?.into_inner().message().await
        };
        soon("an answer", first).await
    }
}

/// The parts of `google.protobuf.FileDescriptorSet` that name methods.
#[derive(Message)]
struct Files {
    #[prost(message, repeated, tag = "1")]
    file: Vec<File>,
}

#[derive(Message)]
struct File {
    #[prost(string, tag = "2")]
    package: String,
    #[prost(message, repeated, tag = "6")]
    service: Vec<Service>,
}

#[derive(Message)]
struct Service {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    method: Vec<Method>,
}

#[derive(Message)]
struct Method {
    #[prost(string, tag = "1")]
    name: String,
}

/// The paths of all methods of the wire protocol.
pub fn all_methods() -> Vec<String> {
    let files = Files::decode(holdfast_proto::FILE_DESCRIPTOR_SET).expect("descriptors");
    let mut paths = Vec::new();
    for file in files.file {
        for service in file.service {
            let (package, name) = (&file.package, &service.name);
            let path = |method: Method| format!("/{package}.{name}/{}", method.name);
            paths.extend(service.method.into_iter().map(path));
        }
    }
    paths
}
