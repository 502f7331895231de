//! Parsed requests to the API server.

use std::collections::BTreeMap;

use super::{resources::Resource, selector::Selector, store::Key};

/// The verbs of audit logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
}

impl Verb {
    /// Whether it is a write.
    pub const fn writes(self) -> bool {
        match self {
            Self::Get | Self::List | Self::Watch => false,
            Self::Create | Self::Update | Self::Patch | Self::Delete => true,
        }
    }
}

/// A parsed request.
#[derive(Clone, Debug)]
pub struct ApiRequest {
    pub verb: Verb,
    pub resource: &'static Resource,
    pub version: String,
    pub namespace: String,
    /// Empty for lists, watches and creates.
    pub name: String,
    /// Empty for the object itself.
    pub subresource: String,
    pub query: BTreeMap<String, String>,
    /// Whether only metadata is requested.
    pub metadata_only: bool,
    pub content_type: String,
}

impl ApiRequest {
    /// `None` if the model does not serve this path or method.
    pub fn parse(request: &http::request::Parts) -> Option<Self> {
        let mut path = request.uri.path().trim_matches('/').split('/');
        let group = match path.next()? {
            "api" => "",
            "apis" => path.next()?,
            _ => return None,
        };
        let version = path.next()?.to_owned();
        let mut next = path.next()?;
        let mut namespace = "";
        if next == "namespaces" {
            namespace = path.next()?;
            next = path.next()?;
        }
        let resource = Resource::at(group, next)?;
        if !resource.versions.contains(&version.as_str()) {
            return None;
        }
        let name = path.next().unwrap_or_default();
        let subresource = path.next().unwrap_or_default();
        if !(subresource.is_empty() || subresource == "status" && resource.status) {
            return None;
        }
        let query = request.uri.query().unwrap_or_default().as_bytes();
        let query: BTreeMap<String, String> =
            url::form_urlencoded::parse(query).into_owned().collect();
        let is_watch = query
            .get("watch")
            .is_some_and(|watch| watch == "true" || watch == "1");
        let verb = match (request.method.as_str(), name) {
            ("GET", "") if is_watch => Verb::Watch,
            ("GET", "") => Verb::List,
            ("GET", _) => Verb::Get,
            ("POST", "") => Verb::Create,
            ("PUT", _) => Verb::Update,
            ("PATCH", _) => Verb::Patch,
            ("DELETE", name) if !name.is_empty() => Verb::Delete,
            _ => return None,
        };
        let header = |name| {
            let value = request
                .headers
                .get(name)
                .and_then(|value: &http::HeaderValue| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        Some(Self {
            verb,
            resource,
            version,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource: subresource.to_owned(),
            metadata_only: header(http::header::ACCEPT).contains("as=PartialObjectMetadata"),
            content_type: header(http::header::CONTENT_TYPE),
            query,
        })
    }

    pub fn key(&self) -> Key {
        Key::new(self.resource.plural, &self.namespace, &self.name)
    }

    pub fn selector(&self) -> Selector {
        Selector::parse(
            &self.namespace,
            self.param("labelSelector"),
            self.param("fieldSelector"),
        )
    }

    pub fn param(&self, name: &str) -> &str {
        self.query.get(name).map(String::as_str).unwrap_or_default()
    }

    pub fn number(&self, name: &str) -> Option<u64> {
        self.param(name).parse().ok()
    }
}
