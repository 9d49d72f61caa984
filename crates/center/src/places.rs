//! Where an address is: the operator's table, and a MaxMind database where the table has no answer (C5).

use headwater_center_core::place_table::{BadLine, PlaceTable};
use headwater_model::Place;
use maxminddb::{MaxMindDbError, Reader};
use serde::Deserialize;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// A table of places is read whole.
const MAX_TABLE_BYTES: u64 = 512 << 20;

/// Why places cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum PlacesError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The table is larger than anyone's.
    #[error("{path} has more than {MAX_TABLE_BYTES} bytes")]
    TooLarge {
        /// Which.
        path: PathBuf,
    },
    /// A line of the table is wrong.
    #[error("{path}: {source}")]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line and what is wrong with it.
        source: BadLine,
    },
    /// The database is none.
    #[error("{path} is no MaxMind database: {source}")]
    Database {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: MaxMindDbError,
    },
}

/// The table and the database.
#[derive(Default)]
pub(crate) struct Places {
    table: PlaceTable,
    database: Option<Reader<Vec<u8>>>,
}

/// What the usual databases (country, city, AS, ISP) say, each some of it.
#[derive(Deserialize)]
struct Record<'a> {
    #[serde(borrow)]
    country: Option<Coded<'a>>,
    #[serde(borrow)]
    subdivisions: Option<Vec<Coded<'a>>>,
    autonomous_system_number: Option<u32>,
    autonomous_system_organization: Option<&'a str>,
    isp: Option<&'a str>,
}

#[derive(Deserialize)]
struct Coded<'a> {
    iso_code: Option<&'a str>,
}

impl Places {
    /// Reads both files, as far as there are any.
    pub(crate) fn open(table: Option<&Path>, database: Option<&Path>) -> Result<Places, PlacesError> {
        let mut places = Places::default();
        if let Some(path) = table {
            let read = |source| PlacesError::Read { path: path.into(), source };
            if std::fs::metadata(path).map_err(read)?.len() > MAX_TABLE_BYTES {
                return Err(PlacesError::TooLarge { path: path.into() });
            }
            let text = std::fs::read_to_string(path).map_err(read)?;
            places.table =
                PlaceTable::parse(&text).map_err(|source| PlacesError::Line { path: path.into(), source })?;
        }
        if let Some(path) = database {
            let bytes = std::fs::read(path).map_err(|source| PlacesError::Read { path: path.into(), source })?;
            let reader =
                Reader::from_source(bytes).map_err(|source| PlacesError::Database { path: path.into(), source })?;
            places.database = Some(reader);
        }
        Ok(places)
    }

    /// The place of `address`.
    pub(crate) fn place_of(&self, address: IpAddr) -> Place {
        let mut place = self.table.place_of(address);
        let Some(database) = &self.database else { return place };
        if place.asn.is_some() && place.country.is_some() {
            return place;
        }
        // A broken record is as good as none.
        let Ok(Some(found)) = database.lookup::<Record>(address.to_canonical()) else { return place };
        let owned = |text: Option<&str>| text.map(str::to_owned);
        place.asn = place.asn.or(found.autonomous_system_number);
        place.isp = place.isp.or_else(|| owned(found.isp.or(found.autonomous_system_organization)));
        if place.country.is_none() {
            place.country = owned(found.country.and_then(|c| c.iso_code));
            place.state = owned(found.subdivisions.and_then(|s| s.into_iter().next()).and_then(|s| s.iso_code));
        }
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("places.csv");
        let check = |table: bool, says: &str| {
            let given = Some(path.as_path());
            let opened = if table { Places::open(given, None) } else { Places::open(None, given) };
            let said = opened.err().unwrap().to_string();
            assert!(said.contains("places.csv") && said.contains(says), "{said}");
        };
        check(true, "cannot read");
        check(false, "cannot read");
        std::fs::write(&path, "10.0.0.0/8,64500\nnonsense,1\n").unwrap();
        check(true, "line 2");
        check(false, "no MaxMind database");
        std::fs::write(&path, "10.0.0.0/8,64500,Net,DE\n").unwrap();
        let places = Places::open(Some(&path), None).unwrap();
        assert_eq!(places.place_of("::ffff:10.1.2.3".parse().unwrap()).asn, Some(64500));
    }
}
