//! TLS as nodes use it: both ends show self-signed certificates; what counts is the key. Certificates' dates are not
//! looked at, so that a skewed clock works.

use headwater_model::{Hash, NodeId};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use std::sync::{Arc, Mutex, PoisonError};
use x509_parser::prelude::{FromDer, X509Certificate};

/// The id of the node that holds the key of `certificate`.
pub(crate) fn node_of_certificate(certificate: &CertificateDer<'_>) -> Option<NodeId> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(NodeId(Hash::of(&[parsed.tbs_certificate.subject_pki.raw]).0))
}

fn shown(connection: &quinn::Connection) -> Option<Vec<CertificateDer<'static>>> {
    connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok().map(|c| *c)
}

/// Who is at the other end of `connection`, as TLS proved.
pub fn node_of(connection: &quinn::Connection) -> Option<NodeId> {
    node_of_certificate(shown(connection)?.first()?)
}

/// SHA-256 of the certificate that the other end showed.
pub fn certificate_of(connection: &quinn::Connection) -> Option<Hash> {
    Some(Hash::of(&[shown(connection)?.first()?]))
}

/// Which certificate an HTTPS server must show. That it has the certificate's key is checked in every case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shows {
    /// The one with this SHA-256.
    This(Hash),
    /// One that the system's certificate authorities vouch for.
    Public,
    /// Any: who is there is found out otherwise.
    Any,
}

/// SHA-256 of the certificate that the other end showed.
#[derive(Clone, Default, Debug)]
pub struct Shown(Arc<Mutex<Option<Hash>>>);

impl Shown {
    /// It; `None` before the handshake. Of several connections the last one's.
    pub fn certificate(&self) -> Option<Hash> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// TLS for HTTPS, HTTP/1.1, and what the other end will have shown.
///
/// # Errors
/// When TLS cannot be set up, as where there are no certificate authorities.
pub fn https_client_config(wanted: Shows) -> Result<(rustls::ClientConfig, Shown), Error> {
    let provider = crate::endpoint::provider();
    let algorithms = provider.signature_verification_algorithms;
    let by_key = |certificate| Arc::new(ByKey { expected: None, certificate, optional: false, algorithms });
    let verifier: Arc<dyn ServerCertVerifier> = match wanted {
        Shows::This(hash) => by_key(Some(hash)),
        Shows::Any => by_key(None),
        Shows::Public => Arc::new(rustls_platform_verifier::Verifier::new(provider.clone())?),
    };
    let shown = Shown::default();
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Noting { verifier, shown: shown.clone() }))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((config, shown))
}

/// Notes the certificate that is shown.
#[derive(Debug)]
struct Noting {
    verifier: Arc<dyn ServerCertVerifier>,
    shown: Shown,
}

impl ServerCertVerifier for Noting {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.verifier.verify_server_cert(certificate, intermediates, name, ocsp, now)?;
        *self.shown.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Hash::of(&[certificate]));
        Ok(verified)
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, dss)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, dss)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// Accepts any self-signed certificate, or only that of one node; the handshake proves that the other end has its key.
#[derive(Debug)]
pub(crate) struct ByKey {
    pub(crate) expected: Option<NodeId>,
    /// Only this certificate.
    pub(crate) certificate: Option<Hash>,
    /// Whoever dials may show none.
    pub(crate) optional: bool,
    pub(crate) algorithms: WebPkiSupportedAlgorithms,
}

impl ByKey {
    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let node = node_of_certificate(certificate).ok_or(CertificateError::BadEncoding)?;
        if self.certificate.is_some_and(|wanted| wanted != Hash::of(&[certificate])) {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        match self.expected {
            Some(expected) if expected != node => Err(CertificateError::ApplicationVerificationFailure.into()),
            _ => Ok(()),
        }
    }
}

impl ServerCertVerifier for ByKey {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(certificate).map(|()| ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, dss, &self.algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, dss, &self.algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for ByKey {
    fn client_auth_mandatory(&self) -> bool {
        !self.optional
    }
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }
    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(certificate).map(|()| ClientCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, dss, &self.algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, dss, &self.algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
