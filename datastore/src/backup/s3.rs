//! A bucket of S3, or of anything that speaks its protocol. Where it is and
//! who we are stands in the environment, under the names that AWS's own tools
//! use: secrets belong on no command line.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::{Method, Request, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt;

use super::name::BackupName;

/// How long the signature of a request is good: longer than any transfer's
/// beginning takes, and short enough for a log that someone else reads.
const SIGNATURE: Duration = Duration::from_secs(300);
/// How long the server may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Bytes read from a file at once.
const PIECE_BYTES: usize = 64 << 10;
/// An answer other than a backup is no longer than this.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// What one request can store; S3's own bound.
const OBJECT_BYTES_MAX: u64 = 5 << 30;

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Why the bucket could not be used.
#[derive(Debug, thiserror::Error)]
pub enum S3Error {
    #[error("{address:?} is no address of a bucket: s3://BUCKET or s3://BUCKET/PREFIX")]
    Address { address: String },
    #[error("{variable} is not set in the environment")]
    Missing { variable: &'static str },
    #[error("{variable} is no good: {reason}")]
    Setting { variable: &'static str, reason: String },
    #[error("can't reach the bucket")]
    Connect(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the bucket was silent for {} s", SILENCE_MAX.as_secs())]
    Silent,
    #[error("the bucket answered {status}: {message}")]
    Refused { status: StatusCode, message: String },
    #[error("the bucket's answer makes no sense: {0}")]
    Answer(String),
    #[error("can't read or write {path}")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the backup has {bytes} bytes, and one object holds at most {OBJECT_BYTES_MAX}")]
    TooLarge { bytes: u64 },
    #[error("what was read back from the bucket is not what was stored there")]
    Differs,
}

/// A place in a bucket.
#[derive(Clone)]
pub struct S3 {
    bucket: Arc<Bucket>,
    credentials: Arc<Credentials>,
    prefix: String,
    client: Client<HttpsConnector<HttpConnector>, Body>,
}

impl std::fmt::Debug for S3 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "s3://{}/{}", self.bucket.name(), self.prefix)
    }
}

impl S3 {
    /// Whether a target is meant to be a bucket.
    pub fn is_address(address: &Path) -> bool {
        address.as_os_str().as_encoded_bytes().starts_with(b"s3://")
    }

    /// The place that `s3://BUCKET/PREFIX` names; `variable` gives the
    /// environment's variables.
    pub fn new(
        address: &str,
        variable: impl Fn(&'static str) -> Option<String>,
    ) -> Result<S3, S3Error> {
        let bad = || S3Error::Address { address: address.to_owned() };
        let place = address.strip_prefix("s3://").ok_or_else(bad)?;
        let (name, prefix) = place.split_once('/').unwrap_or((place, ""));
        if name.is_empty() {
            return Err(bad());
        }
        let prefix = match prefix.trim_matches('/') {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        let needed = |name| variable(name).ok_or(S3Error::Missing { variable: name });
        let key = needed("AWS_ACCESS_KEY_ID")?;
        let secret = needed("AWS_SECRET_ACCESS_KEY")?;
        let credentials = match variable("AWS_SESSION_TOKEN") {
            Some(token) => Credentials::new_with_token(key, secret, token),
            None => Credentials::new(key, secret),
        };
        let region = variable("AWS_REGION").unwrap_or_else(|| "us-east-1".to_owned());
        let (endpoint, style) = match variable("AWS_ENDPOINT_URL_S3") {
            // Servers of one's own seldom have a name for each bucket.
            Some(endpoint) => (endpoint, UrlStyle::Path),
            None => (format!("https://s3.{region}.amazonaws.com"), UrlStyle::VirtualHost),
        };
        let setting = |reason: String| S3Error::Setting { variable: "AWS_ENDPOINT_URL_S3", reason };
        let endpoint = endpoint.parse().map_err(|error| setting(format!("{error}")))?;
        let bucket = Bucket::new(endpoint, style, name.to_owned(), region)
            .map_err(|error| setting(error.to_string()))?;
        let client = client(variable("AWS_CA_BUNDLE").as_deref().map(Path::new))?;
        let (bucket, credentials) = (Arc::new(bucket), Arc::new(credentials));
        Ok(S3 { bucket, credentials, prefix, client })
    }

    /// How people name an object here.
    pub fn address_of(&self, name: &str) -> String {
        format!("s3://{}/{}{name}", self.bucket.name(), self.prefix)
    }

    /// The backups that are here, oldest first.
    pub async fn list(&self) -> Result<Vec<BackupName>, S3Error> {
        let mut found = Vec::new();
        let mut from: Option<String> = None;
        loop {
            let mut action = self.bucket.list_objects_v2(Some(&self.credentials));
            action.with_prefix(self.prefix.as_str());
            if let Some(from) = from.take() {
                action.with_continuation_token(from);
            }
            let answer = self.ask(Method::GET, action.sign(SIGNATURE).as_str()).await?;
            let text = String::from_utf8_lossy(&answer).into_owned();
            let page = rusty_s3::actions::ListObjectsV2::parse_response(&text)
                .map_err(|error| S3Error::Answer(error.to_string()))?;
            let names = page.contents.iter().filter_map(|object| {
                object.key.strip_prefix(&self.prefix)?.parse::<BackupName>().ok()
            });
            found.extend(names);
            match page.next_continuation_token {
                Some(next) => from = Some(next),
                None => break,
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Removes an object; one that is not there is fine.
    pub async fn remove(&self, name: &str) -> Result<(), S3Error> {
        let object = self.object(name);
        let action = self.bucket.delete_object(Some(&self.credentials), &object);
        match self.ask(Method::DELETE, action.sign(SIGNATURE).as_str()).await {
            Err(S3Error::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(()),
            result => result.map(drop),
        }
    }

    /// Stores a file and reads the object back: it is there when its content
    /// is what the file holds. An object appears whole or not at all.
    pub async fn put(&self, path: &Path, name: &str) -> Result<(), S3Error> {
        let failed = |source| S3Error::File { path: path.to_owned(), source };
        let file = tokio::fs::File::open(path).await.map_err(failed)?;
        let bytes = file.metadata().await.map_err(failed)?.len();
        if bytes > OBJECT_BYTES_MAX {
            return Err(S3Error::TooLarge { bytes });
        }
        let object = self.object(name);
        let url = self.bucket.put_object(Some(&self.credentials), &object).sign(SIGNATURE);
        let body = StreamBody::new(pieces(file)).boxed_unsync();
        let request = Request::put(url.as_str()).header(header::CONTENT_LENGTH, bytes).body(body);
        let request = request.map_err(|error| S3Error::Answer(error.to_string()))?;
        // The server is silent while it takes the body in.
        let answer = self.client.request(request).await;
        let answer = answer.map_err(|error| S3Error::Connect(error.into()))?;
        collect(answer).await?;
        let path = path.to_owned();
        let hashing = tokio::task::spawn_blocking(move || {
            let mut hash = Sha256::new();
            let hashed = File::open(&path).and_then(|mut file| io::copy(&mut file, &mut hash));
            hashed.map(|_| hash).map_err(|source| S3Error::File { path, source })
        });
        let expected = hashing.await.expect("hashing does not panic")?.finalize();
        let mut found = Sha256::new();
        self.read(name, |piece| {
            found.update(&piece);
            Ok(())
        })
        .await?;
        if found.finalize() == expected { Ok(()) } else { Err(S3Error::Differs) }
    }

    /// Copies an object to a file.
    pub async fn get(&self, name: &str, path: &Path) -> Result<(), S3Error> {
        let failed = |source| S3Error::File { path: path.to_owned(), source };
        let mut file = File::create_new(path).map_err(failed)?;
        self.read(name, |piece| file.write_all(&piece).map_err(failed)).await
    }

    async fn read(
        &self,
        name: &str,
        mut each: impl FnMut(Bytes) -> Result<(), S3Error>,
    ) -> Result<(), S3Error> {
        let object = self.object(name);
        let url = self.bucket.get_object(Some(&self.credentials), &object).sign(SIGNATURE);
        let answer = self.send(Method::GET, url.as_str()).await?;
        if !answer.status().is_success() {
            return collect(answer).await.map(drop);
        }
        let mut body = answer.into_body();
        while let Some(frame) = in_time(body.frame()).await? {
            let frame = frame.map_err(|error| S3Error::Connect(error.into()))?;
            if let Ok(piece) = frame.into_data() {
                each(piece)?;
            }
        }
        Ok(())
    }

    fn object(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    async fn ask(&self, method: Method, url: &str) -> Result<Bytes, S3Error> {
        collect(self.send(method, url).await?).await
    }

    async fn send(&self, method: Method, url: &str) -> Result<http::Response<Incoming>, S3Error> {
        let empty = Empty::new().map_err(|never| match never {}).boxed_unsync();
        let request = Request::builder().method(method).uri(url).body(empty);
        let request = request.map_err(|error| S3Error::Answer(error.to_string()))?;
        let answer = in_time(self.client.request(request)).await?;
        answer.map_err(|error| S3Error::Connect(error.into()))
    }
}

fn client(ca: Option<&Path>) -> Result<Client<HttpsConnector<HttpConnector>, Body>, S3Error> {
    let bad = |reason: String| S3Error::Setting { variable: "AWS_CA_BUNDLE", reason };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring knows TLS 1.2 and 1.3");
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            for certificate in
                CertificateDer::pem_file_iter(path).map_err(|e| bad(e.to_string()))?
            {
                let certificate = certificate.map_err(|error| bad(error.to_string()))?;
                roots.add(certificate).map_err(|error| bad(error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(bad(format!("{} holds no certificate", path.display())));
            }
        }
        // What of the system's can't be read is as good as not there: then no
        // server is believed, and the connection says so.
        None => {
            let found = rustls_native_certs::load_native_certs();
            let _ = roots.add_parsable_certificates(found.certs);
        }
    }
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let https = HttpsConnectorBuilder::new().with_tls_config(config).https_or_http();
    Ok(Client::builder(TokioExecutor::new()).build(https.enable_http1().build()))
}

/// The answer's body, or what it says of a refusal.
async fn collect(answer: http::Response<Incoming>) -> Result<Bytes, S3Error> {
    let status = answer.status();
    let limited = http_body_util::Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
    let body = in_time(limited.collect()).await?.map_err(S3Error::Connect)?.to_bytes();
    if status.is_success() {
        return Ok(body);
    }
    let text = String::from_utf8_lossy(&body);
    let within = |tag: &str| {
        let (_, rest) = text.split_once(&format!("<{tag}>"))?;
        rest.split_once(&format!("</{tag}>")).map(|(inner, _)| inner.to_owned())
    };
    let words = [within("Code"), within("Message")];
    let message = words.into_iter().flatten().collect::<Vec<_>>().join(": ");
    Err(S3Error::Refused { status, message })
}

async fn in_time<T>(work: impl Future<Output = T>) -> Result<T, S3Error> {
    tokio::time::timeout(SILENCE_MAX, work).await.map_err(|_| S3Error::Silent)
}

fn pieces(file: tokio::fs::File) -> impl Stream<Item = io::Result<Frame<Bytes>>> {
    futures::stream::try_unfold(file, |mut file| async move {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        let read = (&mut file).take(PIECE_BYTES as u64).read_to_end(&mut piece).await?;
        Ok((read > 0).then(|| (Frame::data(Bytes::from(piece)), file)))
    })
    .boxed()
}
