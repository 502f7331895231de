//! The login: finds the visitor whom a request comes from.
//!
//! | `--auth` | a request is of |
//! | --- | --- |
//! | `none` | the user of the kubeconfig; only on a loopback address |
//! | `token` | the user of the token that the session keeps, or of the header `Authorization` |
//! | `forwarded` | the user of the token in the header `Authorization`, which a proxy adds |
//! | `headers` | the user in the header `X-Forwarded-User`, if the request comes from a trusted proxy |

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::{
    network::Network,
    pace::{ByAddress, Pace},
    refusal::Refusal,
    visitor::{KEPT, Visitor},
};
use crate::{
    cli::client::Auth,
    shell::{api_server::visitors::Visitors, lock::lock},
};

/// The name of the cookie of a session.
const COOKIE: &str = "flagger-session";
/// The longest time of a session. The token may expire earlier.
const SESSION: Duration = Duration::from_secs(12 * 3600);
/// The maximum number of sessions, and of visitors that are known. The one that came least recently is forgotten first.
const MOST: usize = 1000;
/// The longest token, in bytes.
const LONGEST: usize = 12 << 10;
/// The maximum number of groups of a user whom a proxy names.
const GROUPS: usize = 100;
/// How often an address may come with a token that is not known. All visitors behind a gateway have its address.
const LOGINS: Pace = Pace {
    burst: 100,
    each: Duration::from_millis(200),
};

/// The login.
pub struct Gate {
    visitors: Visitors,
    auth: Auth,
    trusted: Vec<Network>,
    logins: ByAddress,
    sessions: Mutex<HashMap<String, Session>>,
    known: Mutex<HashMap<[u8; 32], Arc<Visitor>>>,
}

/// A session: the token of a visitor, and its begin.
struct Session {
    token: String,
    began: Instant,
}

/// The parts of a request by which its visitor is found.
#[derive(Clone, Copy)]
pub struct Caller<'a> {
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The address that the connection comes from.
    pub peer: IpAddr,
}

impl Gate {
    /// A login of this kind.
    pub fn new(visitors: Visitors, auth: Auth, trusted: Vec<Network>) -> Self {
        Self {
            visitors,
            auth,
            trusted,
            logins: ByAddress::default(),
            sessions: Mutex::default(),
            known: Mutex::default(),
        }
    }

    /// The kind of login.
    pub const fn auth(&self) -> Auth {
        self.auth
    }

    /// Finds the visitor whom a request comes from.
    pub async fn admit(&self, caller: Caller<'_>) -> Result<Arc<Visitor>, Refusal> {
        let visitor = match self.auth {
            Auth::None => Ok(self.process()),
            Auth::Headers => self.named(caller),
            Auth::Forwarded => match bearer(caller.headers) {
                Some(token) => self.of_token(&token, caller.peer).await,
                None => Err(Refusal::NoToken),
            },
            Auth::Token => match bearer(caller.headers).or_else(|| self.of_session(caller.headers))
            {
                Some(token) => self.of_token(&token, caller.peer).await,
                None => Err(Refusal::NoLogin),
            },
        }?;
        *lock(&visitor.came) = Instant::now();
        Ok(visitor)
    }

    /// Begins a session for a token. Returns the value of the header `Set-Cookie`.
    pub async fn log_in(&self, token: &str, caller: Caller<'_>) -> Result<String, Refusal> {
        let token = token.trim();
        self.of_token(token, caller.peer).await?;
        let id = random()?;
        let session = Session {
            token: token.to_owned(),
            began: Instant::now(),
        };
        let mut sessions = lock(&self.sessions);
        sessions.retain(|_, session| session.began.elapsed() < SESSION);
        make_room(&mut sessions, |session| session.began);
        sessions.insert(id.clone(), session);
        let age = SESSION.as_secs();
        Ok(format!(
            "{COOKIE}={id}; {}; Max-Age={age}",
            attributes(caller)
        ))
    }

    /// Ends the session of a request. Returns the value of the header `Set-Cookie`.
    pub fn log_out(&self, caller: Caller<'_>) -> String {
        if let Some(id) = cookie(caller.headers) {
            lock(&self.sessions).remove(&id);
        }
        format!("{COOKIE}=; {}; Max-Age=0", attributes(caller))
    }

    /// Without a login, every visitor is the user of the kubeconfig.
    fn process(&self) -> Arc<Visitor> {
        let visitor = || Visitor::new([0; 32], None, self.visitors.own().clone());
        let mut known = lock(&self.known);
        known
            .entry([0; 32])
            .or_insert_with(|| Arc::new(visitor()))
            .clone()
    }

    /// The token of the session.
    fn of_session(&self, headers: &HeaderMap) -> Option<String> {
        let id = cookie(headers)?;
        let sessions = lock(&self.sessions);
        let session = sessions.get(&id)?;
        (session.began.elapsed() < SESSION).then(|| session.token.clone())
    }

    /// The visitor of a token. The API server reviews it, and reviews it again after some time, because it may expire.
    async fn of_token(&self, token: &str, peer: IpAddr) -> Result<Arc<Visitor>, Refusal> {
        if token.is_empty() || token.len() > LONGEST {
            return Err(Refusal::WrongToken);
        }
        let key = digest(&[token]);
        let known = lock(&self.known).get(&key).cloned();
        if let Some(known) = &known
            && lock(&known.accepted).elapsed() < KEPT
        {
            return Ok(known.clone());
        }
        if known.is_none() && !self.logins.take(peer, LOGINS) {
            return Err(Refusal::TooMany);
        }
        let name = self.visitors.user_of(token).await?;
        let person = self.visitors.with_token(token);
        let Some((name, person)) = name.zip(person) else {
            lock(&self.known).remove(&key);
            lock(&self.sessions).retain(|_, session| session.token != token);
            return Err(Refusal::WrongToken);
        };
        if let Some(known) = known {
            *lock(&known.accepted) = Instant::now();
            return Ok(known);
        }
        Ok(self.remember(Visitor::new(key, Some(name), person)))
    }

    /// The visitor whom a trusted proxy names. The rights of the process decide whom it may impersonate.
    fn named(&self, caller: Caller<'_>) -> Result<Arc<Visitor>, Refusal> {
        if !self.trusted.iter().any(|it| it.contains(caller.peer)) {
            return Err(Refusal::NotTrusted);
        }
        let header = |name| {
            let values = caller.headers.get_all(name).iter();
            values.filter_map(|value| value.to_str().ok())
        };
        let mut users = header("x-forwarded-user");
        // A second header may be of the visitor, and not of the proxy.
        let user = match (users.next(), users.next()) {
            (Some(user), None) if !user.is_empty() => user,
            _ => return Err(Refusal::NoUser),
        };
        let groups = header("x-forwarded-groups").flat_map(|it| it.split(','));
        let groups: Vec<_> = groups.map(str::trim).filter(|it| !it.is_empty()).collect();
        let is_reserved = |name: &&str| name.starts_with("system:");
        if is_reserved(&user) || groups.iter().any(is_reserved) || groups.len() > GROUPS {
            return Err(Refusal::Reserved);
        }
        let words: Vec<_> = std::iter::once(user)
            .chain(groups.iter().copied())
            .collect();
        let key = digest(&words);
        if let Some(known) = lock(&self.known).get(&key) {
            return Ok(known.clone());
        }
        let groups: Vec<_> = groups.into_iter().map(str::to_owned).collect();
        let person = self.visitors.impersonating(user, &groups);
        let person = person.ok_or(Refusal::NoUser)?;
        Ok(self.remember(Visitor::new(key, Some(user.to_owned()), person)))
    }

    fn remember(&self, visitor: Visitor) -> Arc<Visitor> {
        let mut known = lock(&self.known);
        make_room(&mut known, |visitor| *lock(&visitor.came));
        let visitor = Arc::new(visitor);
        known.insert(visitor.key, visitor.clone());
        visitor
    }
}

/// Removes the oldest entry if there is no room for another one.
fn make_room<K: Clone + Eq + std::hash::Hash, V>(
    all: &mut HashMap<K, V>,
    time: impl Fn(&V) -> Instant,
) {
    if all.len() < MOST {
        return;
    }
    let oldest = all.iter().min_by_key(|(_, value)| time(value));
    if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
        all.remove(&oldest);
    }
}

/// The attributes of the cookie. Behind a proxy with TLS, browsers send it by TLS only.
fn attributes(caller: Caller<'_>) -> &'static str {
    let proto = caller.headers.get("x-forwarded-proto");
    if proto.is_some_and(|proto| proto.as_bytes().eq_ignore_ascii_case(b"https")) {
        "Path=/; HttpOnly; SameSite=Strict; Secure"
    } else {
        "Path=/; HttpOnly; SameSite=Strict"
    }
}

/// The token of the header `Authorization`.
fn bearer(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim().to_owned())
}

/// The identifier of the session.
pub fn cookie(headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all(header::COOKIE).iter();
    let mut pairs = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    let found = pairs.find(|(name, _)| *name == COOKIE);
    found.map(|(_, id)| id.to_owned())
}

/// The SHA-256 checksum of these words.
fn digest(words: &[&str]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for word in words {
        digest.update((word.len() as u64).to_be_bytes());
        digest.update(word.as_bytes());
    }
    digest.finalize().into()
}

/// A text that nobody can guess.
fn random() -> Result<String, Refusal> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| Refusal::Failed("no random numbers".to_owned()))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}
