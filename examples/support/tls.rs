//! TLS in front of an address that is served without it, with a certificate made for the occasion.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

/// The most connections at once; others wait to be accepted.
const CONNECTIONS_MAX: usize = 1024;
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Serves until it is dropped, and then removes the file with the certificate.
pub(crate) struct TlsFront {
    address: SocketAddr,
    certificate: PathBuf,
    _serving: AbortOnDropHandle<()>,
}

impl TlsFront {
    /// Listens on `address` and passes what arrives there on to `behind`. The certificate, which is
    /// valid for localhost, the loopback addresses and `address`, is written to the directory for
    /// temporary files.
    pub(crate) async fn start(address: SocketAddr, behind: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let mut names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
        if !needs_no_name(address.ip()) {
            names.push(address.ip().to_string());
        }
        let made = rcgen::generate_simple_self_signed(names).map_err(io::Error::other)?;
        let file = format!("local-aws-{}-{}.pem", std::process::id(), address.port());
        let certificate = std::env::temp_dir().join(file);
        std::fs::File::create_new(&certificate)?.write_all(made.cert.pem().as_bytes())?;
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|config| {
                config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key)
            })
            .map_err(io::Error::other)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let serving = tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(config)), behind));
        Ok(Self { address, certificate, _serving: AbortOnDropHandle::new(serving) })
    }

    /// What to set `AWS_ENDPOINT_URL` to.
    pub(crate) fn endpoint_url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The file with the certificate in PEM, for clients that are to trust it.
    pub(crate) fn certificate(&self) -> &Path {
        &self.certificate
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        // What is left is a file in the directory for temporary files.
        let _ = std::fs::remove_file(&self.certificate);
    }
}

/// Whether the certificate names it anyway, or it stands for every address of the machine.
fn needs_no_name(address: IpAddr) -> bool {
    address.is_unspecified() || ["127.0.0.1", "::1"].contains(&address.to_string().as_str())
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, behind: SocketAddr) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(pass_on(stream, acceptor.clone(), behind));
                }
                // The connection was gone already, or the process has no descriptor left for it.
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// However the connection ends, both sides see it.
async fn pass_on(stream: TcpStream, acceptor: TlsAcceptor, behind: SocketAddr) {
    let _ = stream.set_nodelay(true);
    let handshake = tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(stream));
    let (Ok(Ok(mut outside)), Ok(mut inside)) = (handshake.await, TcpStream::connect(behind).await) else {
        return;
    };
    let _ = inside.set_nodelay(true);
    let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
}
