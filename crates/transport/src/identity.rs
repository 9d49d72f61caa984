//! A node's key and certificate.

use headwater_model::{Hash, NodeId};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Name of the key file in an identity folder.
const KEY_FILE: &str = "node.key";

/// A P-256 key with a self-signed certificate. The node id is the hash of the key, so that it stays when the
/// certificate, which is made anew at each start, changes.
#[derive(Debug)]
pub struct Identity {
    /// SHA-256 of the public key.
    pub node: NodeId,
    /// SHA-256 of the certificate.
    pub certificate_hash: Hash,
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: PrivateKeyDer<'static>,
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The folder or the file cannot be used.
    #[error("cannot {what} {path}: {source}; the folder must be writable by this user, or choose another one")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is no key.
    #[error("{path} is no P-256 key in PEM; move it away to get a new identity")]
    NotAKey {
        /// Where.
        path: PathBuf,
    },
    /// Making a key or a certificate failed.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
}

impl Identity {
    /// The identity kept in `folder`, made now if there is none.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn load_or_create(folder: &Path) -> Result<Identity, IdentityError> {
        let path = folder.join(KEY_FILE);
        let io = |what, source| IdentityError::Io { what, path: path.clone(), source };
        match fs::read_to_string(&path) {
            Ok(pem) => {
                let key = KeyPair::from_pem(&pem).map_err(|_| IdentityError::NotAKey { path: path.clone() })?;
                Self::of(&key)
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {
                fs::create_dir_all(folder).map_err(|e| io("create the folder of", e))?;
                let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
                write_secret(&path, key.serialize_pem().as_bytes()).map_err(|e| io("write", e))?;
                Self::of(&key)
            }
            Err(e) => Err(io("read", e)),
        }
    }

    /// An identity that is forgotten with the process.
    ///
    /// # Errors
    /// [`IdentityError::Certificate`].
    pub fn ephemeral() -> Result<Identity, IdentityError> {
        Self::of(&KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)
    }

    fn of(key: &KeyPair) -> Result<Identity, IdentityError> {
        let mut params = CertificateParams::new(vec!["headwater".to_owned()])?;
        params.distinguished_name.push(rcgen::DnType::CommonName, "headwater");
        let certificate = params.self_signed(key)?;
        Ok(Identity {
            node: NodeId(Hash::of(&[&key.subject_public_key_info()]).0),
            certificate_hash: Hash::of(&[certificate.der()]),
            certificate: certificate.der().clone(),
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        })
    }

    /// Signs with the identity's key: ECDSA on P-256 with SHA-256, r and s of 32 bytes each, as browsers make it too.
    /// `None` where the system has no randomness.
    pub(crate) fn sign(&self, message: &[u8]) -> Option<[u8; 64]> {
        use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
        let random = ring::rand::SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, self.key.secret_der(), &random).ok()?;
        key.sign(&random, message).ok()?.as_ref().try_into().ok()
    }

    /// A key for `purpose`, which must name it uniquely: the same for as long as the identity is.
    pub fn key_for(&self, purpose: &str) -> [u8; 32] {
        Hash::of(&[purpose.as_bytes(), self.key.secret_der()]).0
    }

    /// The certificate and its key, for a TLS server beside QUIC.
    pub fn certificate_and_key(&self) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        (self.certificate.clone(), self.key.clone_key())
    }
}

/// Writes a file that only this user may read; complete or not at all.
fn write_secret(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_stays_and_its_certificate_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let a = Identity::load_or_create(&folder.path().join("identity")).unwrap();
        let b = Identity::load_or_create(&folder.path().join("identity")).unwrap();
        assert_eq!(a.node, b.node);
        assert_ne!(Identity::ephemeral().unwrap().node, a.node);
        assert_eq!(crate::tls::node_of_certificate(&a.certificate), Some(a.node));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(folder.path().join("identity/node.key")).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "others may read the key");
        }
    }

    #[test]
    fn a_broken_key_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(KEY_FILE), "garbage").unwrap();
        let said = Identity::load_or_create(folder.path()).unwrap_err().to_string();
        assert!(said.contains("node.key") && said.contains("no P-256 key"), "{said}");
    }
}
