//! snapshot save

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

use holdfast_proto::etcdserverpb::{SnapshotRequest, SnapshotResponse};
use tonic::{Status, Streaming};

use super::{Context, bad_arguments};
use crate::{
    Exit, Failure,
    connect::Link,
    failure::{DEADLINE, status_text},
    output,
};

pub(super) async fn save(context: &Context<'_>) -> Result<(), Failure> {
    let [path] = context.line.positional() else {
        return bad_arguments("snapshot save expects one argument <filename>");
    };
    let endpoints = &context.client.globals().endpoints;
    if endpoints.len() != 1 {
        return Err(interrupted(format!(
            "snapshot must be requested to one selected node, not multiple [{}]",
            endpoints.join(" ")
        )));
    }
    let path = Path::new(OsStr::from_bytes(path));
    let part = PartFile::create(path)?;
    // A snapshot may take long; only a user who says so gets a limit.
    let version = if context.client.globals().command_timeout_given {
        let limit = context.client.globals().command_timeout;
        tokio::time::timeout(limit, receive(context, &part))
            .await
            .unwrap_or_else(|_| Err(interrupted(DEADLINE)))?
    } else {
        receive(context, &part).await?
    };
    part.finish(path)?;

    let mut said = b"Snapshot saved at ".to_vec();
    said.extend_from_slice(path.as_os_str().as_bytes());
    said.push(b'\n');
    // Before 3.6 no version is sent.
    if !version.is_empty() {
        said.extend_from_slice(format!("Server version {version}\n").as_bytes());
    }
    output::write_stdout(&said)
}

/// Writes the stream into the file and returns the storage version of the server.
async fn receive(context: &Context<'_>, part: &PartFile) -> Result<String, Failure> {
    let refused = |status: &Status| interrupted(status_text(status));
    let link = context.client.any_link().await?;
    let opened = context.client.with_token(link, open).await;
    let (mut first, mut stream) = opened.map_err(|status| refused(&status))?;
    let mut version = String::new();
    let mut missing = None;
    while let Some(chunk) = match first.take() {
        Some(chunk) => Some(chunk),
        None => stream.message().await.map_err(|status| refused(&status))?,
    } {
        (&part.file)
            .write_all(&chunk.blob)
            .map_err(|error| interrupted(format!("could not write snapshot: {error}")))?;
        missing = Some(chunk.remaining_bytes);
        if version.is_empty() {
            version = chunk.version;
        }
    }
    match missing {
        Some(0) => Ok(version),
        Some(bytes) => Err(interrupted(format!(
            "could not write snapshot: the stream ended {bytes} bytes early"
        ))),
        None => Err(interrupted(
            "could not write snapshot: the stream was empty",
        )),
    }
}

/// Starts a snapshot. With the first piece it is known that the server sends it to us.
async fn open(
    link: Link,
) -> Result<(Option<SnapshotResponse>, Streaming<SnapshotResponse>), Status> {
    let request = SnapshotRequest {};
    let mut stream = link.maintenance().snapshot(request).await?.into_inner();
    Ok((stream.message().await?, stream))
}

/// A file beside the wanted one, gone when dropped: no half of a snapshot is ever found under the wanted name.
struct PartFile {
    path: PathBuf,
    file: File,
}

impl PartFile {
    fn create(target: &Path) -> Result<PartFile, Failure> {
        let mut path = target.as_os_str().to_owned();
        path.push(".part");
        let path = PathBuf::from(path);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            // A snapshot holds everything, secrets included.
            .mode(0o600)
            .open(&path)
            .map_err(|error| interrupted(format!("could not open {} ({error})", path.display())))?;
        Ok(PartFile { path, file })
    }

    fn finish(self, target: &Path) -> Result<(), Failure> {
        let failed =
            |what: &str, error: io::Error| interrupted(format!("could not {what} ({error})"));
        self.file
            .sync_all()
            .map_err(|error| failed("fsync snapshot", error))?;
        fs::rename(&self.path, target).map_err(|error| {
            let (from, to) = (self.path.display(), target.display());
            failed(&format!("rename {from} to {to}"), error)
        })?;
        // The new name is durable only with its directory.
        let directory = match target.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(|error| failed("fsync the directory", error))
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        // After `finish` there is nothing under this name.
        let _ = fs::remove_file(&self.path);
    }
}

fn interrupted(text: impl Into<String>) -> Failure {
    Failure::new(Exit::Interrupted, text)
}
