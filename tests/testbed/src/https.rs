//! An HTTPS server with a self-signed certificate. Clients trust the certificate only if a test passes it to them.

use std::{convert::Infallible, fmt, sync::Arc};

use http::Response;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, pki_types::PrivateKeyDer},
};

use crate::Error;

/// The server. Dropping it stops it.
pub struct HttpsServer {
    /// Its address, with the scheme.
    pub url: String,
    /// Its certificate, in PEM.
    pub certificate: String,
    server: JoinHandle<()>,
}

impl Drop for HttpsServer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl HttpsServer {
    /// Starts a server on loopback that gives each request this answer.
    pub async fn start(answer: Response<String>) -> Result<Self, Error> {
        let failed = |why: &dyn fmt::Display| Error::Failed(format!("an HTTPS server: {why}"));
        let (tls, certificate) = self_signed("127.0.0.1")?;
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.map_err(|e| failed(&e))?;
        let address = listener.local_addr().map_err(|e| failed(&e))?;
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, answer) = (tls.clone(), answer.clone());
                tokio::spawn(async move {
                    // A client that refuses the certificate ends the handshake.
                    let Ok(stream) = tls.accept(stream).await else {
                        return;
                    };
                    let answer = service_fn(async |_| Ok::<_, Infallible>(answer.clone()));
                    let connection = http1::Builder::new();
                    let connection = connection.serve_connection(TokioIo::new(stream), answer);
                    // The client sees how the connection ended.
                    let _ = connection.await;
                });
            }
        });
        Ok(Self {
            url: format!("https://{address}"),
            certificate,
            server,
        })
    }
}

/// The TLS side of a server with a new certificate for this name, and the certificate in PEM.
pub(crate) fn self_signed(name: &str) -> Result<(TlsAcceptor, String), Error> {
    let failed = |why: &dyn fmt::Display| Error::Failed(format!("a certificate: {why}"));
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed([name.to_owned()]).map_err(|e| failed(&e))?;
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).map_err(|e| failed(&e))?;
    let tls = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .map_err(|e| failed(&e))?;
    Ok((TlsAcceptor::from(Arc::new(tls)), cert.pem()))
}
