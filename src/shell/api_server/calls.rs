//! The calls of metric providers that go to the API server: reads of metrics, and the Analyses of Keptn.

use std::sync::Arc;

use futures::{AsyncReadExt, FutureExt};
use kube::Client;
use serde_json::json;
use url::{Position, Url};

use super::cluster::Cluster;
use crate::{
    shell::outside::http::Servers,
    snapshot::{HttpRequest, HttpResponse, Method},
};

/// The maximum number of bytes that are read of an answer.
const MAX_BODY: u64 = 256 << 10;
/// The kind under which the calls are counted.
const KIND: &str = "Metric";

impl Cluster {
    /// Returns the function that sends calls of metric providers to the API server. The caller limits the time and the number of the calls.
    pub fn calls(&self) -> Arc<Servers> {
        let cluster = self.clone();
        Arc::new(move |request| {
            let (cluster, request) = (cluster.clone(), request.clone());
            async move { cluster.call(&request).await }.boxed()
        })
    }

    async fn call(&self, request: &HttpRequest) -> Result<HttpResponse, String> {
        let verb = match request.method {
            Method::Get => "get",
            Method::Post => "create",
            Method::Put => "update",
            Method::Delete => "delete",
        };
        if verb != "get" && !self.may_write() {
            return Err("this process is not the leader any more".to_owned());
        }
        self.metrics().request(verb, KIND);
        answer(&self.clients().requests, request).await
    }
}

/// The answer of the API server to a call of a metric provider.
pub(super) async fn answer(client: &Client, request: &HttpRequest) -> Result<HttpResponse, String> {
    let prepared = prepared(request).ok_or("the request cannot be built")?;
    match text(client, prepared).await {
        Ok(body) => Ok(HttpResponse { status: 200, body }),
        // Pass the API server's message on unchanged.
        Err(kube::Error::Api(status)) => Ok(HttpResponse {
            status: status.code,
            body: json!({"message": status.message}).to_string(),
        }),
        Err(error) => Err(format!("API server unreachable: {error}")),
    }
}

/// The request with its path, and without the address, which the client adds.
fn prepared(request: &HttpRequest) -> Option<http::Request<Vec<u8>>> {
    let url = Url::parse(&request.url.0).ok()?;
    let method = match request.method {
        Method::Get => http::Method::GET,
        Method::Post => http::Method::POST,
        Method::Put => http::Method::PUT,
        Method::Delete => http::Method::DELETE,
    };
    let path = &url[Position::BeforePath..Position::AfterQuery];
    let mut prepared = http::Request::builder().method(method).uri(path);
    for (name, value) in &request.headers {
        prepared = prepared.header(name, &value.0);
    }
    let body = request.body.clone().unwrap_or_default();
    prepared.body(body.into_bytes()).ok()
}

/// Sends a request and reads the answer.
async fn text(client: &Client, request: http::Request<Vec<u8>>) -> Result<String, kube::Error> {
    let mut body = Vec::new();
    let answer = Box::pin(client.request_stream(request).await?);
    let read = answer.take(MAX_BODY + 1).read_to_end(&mut body).await;
    read.map_err(kube::Error::ReadEvents)?;
    if body.len() as u64 > MAX_BODY {
        let why = "the answer is larger than 256 KiB";
        return Err(kube::Error::ReadEvents(std::io::Error::other(why)));
    }
    Ok(String::from_utf8_lossy(&body).into_owned())
}

#[cfg(test)]
mod tests;
