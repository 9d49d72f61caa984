//! An object's bytes on their way out.

use bytes::{Bytes, BytesMut};
use headwater_model::live::{Listed, ObjectKind};

use super::fetch::Broken;
use super::{Ingest, Ingested, MAX_CHUNK_BYTES, MAX_OBJECT_BYTES, kind};

/// What came of one object.
pub(super) struct Outlet {
    object: u64,
    kind: Option<ObjectKind>,
    /// To be said once the kind is known.
    listed: Option<Listed>,
    /// Bytes that do not tell the kind yet.
    head: BytesMut,
    got: u64,
}

impl Outlet {
    pub(super) fn new(object: u64, kind: Option<ObjectKind>, listed: Option<Listed>) -> Self {
        Outlet { object, kind, listed, head: BytesMut::new(), got: 0 }
    }

    pub(super) fn object(&self) -> u64 {
        self.object
    }

    /// Bytes that came.
    pub(super) fn got(&self) -> u64 {
        self.got
    }

    /// The next bytes.
    pub(super) async fn push(&mut self, ingest: &Ingest, data: Bytes) -> Result<(), Broken> {
        self.got += data.len() as u64;
        if self.got > MAX_OBJECT_BYTES {
            return Err(too_long());
        }
        if let Some(kind) = self.kind {
            return self.send(ingest, kind, data).await;
        }
        self.head.extend_from_slice(&data);
        let kind = kind::by_bytes(&self.head);
        if kind.is_none() && self.head.len() < kind::ENOUGH_BYTES {
            return Ok(());
        }
        let kind = kind.ok_or_else(unknown)?;
        self.kind = Some(kind);
        ingest.jobs().learnt = Some(kind);
        if let Some(listed) = self.listed.take() {
            ingest.send(Ingested::Listed { object: self.object, kind, listed }).await?;
        }
        let head = self.head.split().freeze();
        self.send(ingest, kind, head).await
    }

    /// That was all.
    pub(super) fn end(&self) -> Result<(), Broken> {
        if self.kind.is_some() { Ok(()) } else { Err(unknown()) }
    }

    async fn send(&self, ingest: &Ingest, kind: ObjectKind, mut data: Bytes) -> Result<(), Broken> {
        while !data.is_empty() {
            let chunk = data.split_to(data.len().min(MAX_CHUNK_BYTES));
            ingest.send(Ingested::Bytes { object: self.object, kind, data: chunk }).await?;
        }
        Ok(())
    }
}

/// It has more bytes than any may have.
pub(super) fn too_long() -> Broken {
    Broken::Lost(format!("it has more than {} MiB", MAX_OBJECT_BYTES >> 20))
}

fn unknown() -> Broken {
    Broken::Lost("it is neither a transport stream nor fragmented MP4".to_owned())
}
