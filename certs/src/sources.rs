//! The files of a listener, read as one state and watched for changes.

use std::path::PathBuf;

use crate::{
    error::TlsError,
    provider::sha256,
    server::Plan,
    settings::{ClientAuth, ServerTlsSettings},
    source_file::{Kind, SourceFile, Stamp},
};

pub(crate) type Digest = [u8; 32];

/// The contents of all files of a listener, read in one go.
pub(crate) struct Sources {
    pub(crate) cert: SourceFile,
    pub(crate) key: SourceFile,
    pub(crate) cas: Vec<SourceFile>,
    pub(crate) crl: Option<SourceFile>,
    /// Certificate and key for connections to other members, if not the same.
    pub(crate) outgoing: Option<(SourceFile, SourceFile)>,
}

impl Sources {
    pub(crate) fn read(plan: &Plan) -> Result<Self, TlsError> {
        let settings = &plan.listener;
        let cas = ca_files(settings)
            .iter()
            .map(|path| SourceFile::read(path, Kind::CaBundle))
            .collect::<Result<_, _>>()?;
        let crl = settings
            .crl_file
            .as_deref()
            .map(|path| SourceFile::read(path, Kind::Crl))
            .transpose()?;
        let outgoing = match plan.separate_pair() {
            None => None,
            Some((cert, key)) => Some((
                SourceFile::read(cert, Kind::Certificates)?,
                SourceFile::read(key, Kind::PrivateKey)?,
            )),
        };
        Ok(Self {
            cert: SourceFile::read(&settings.cert_file, Kind::Certificates)?,
            key: SourceFile::read(&settings.key_file, Kind::PrivateKey)?,
            cas,
            crl,
            outgoing,
        })
    }

    /// Of the digests of the files, so that a byte that moves from one file to the next changes it.
    pub(crate) fn digest(&self) -> Digest {
        let mut all = Vec::new();
        for file in [&self.cert, &self.key]
            .into_iter()
            .chain(&self.cas)
            .chain(&self.crl)
            .chain(self.outgoing.iter().flat_map(|(cert, key)| [cert, key]))
        {
            all.extend_from_slice(sha256(&file.bytes).as_ref());
        }
        let mut digest = Digest::default();
        digest.copy_from_slice(sha256(&all).as_ref());
        digest
    }
}

fn ca_files(settings: &ServerTlsSettings) -> &[PathBuf] {
    match &settings.client_auth {
        ClientAuth::None => &[],
        ClientAuth::Required { ca_files } => ca_files,
    }
}

pub(crate) fn stamps(plan: &Plan) -> Vec<Stamp> {
    let settings = &plan.listener;
    let outgoing = plan.separate_pair().into_iter();
    [&settings.cert_file, &settings.key_file]
        .into_iter()
        .chain(ca_files(settings))
        .chain(&settings.crl_file)
        .chain(outgoing.flat_map(|(cert, key)| [cert, key]))
        .map(|path| Stamp::of(path))
        .collect()
}
