//! The parts that the tests of the clouds share.

use url::form_urlencoded;

use super::{Grant, IdentityError, Pass, Step, environment::Environment, refusal, step::get};
use crate::snapshot::{HttpRequest, HttpResponse, Secret};

/// The environment of a pod with these variables.
pub fn environment(variables: &[(&str, &str)]) -> Environment {
    Environment::of(|name| {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    })
}

/// A request to this address.
pub fn request(url: &str) -> HttpRequest {
    get(url.to_owned(), &[])
}

/// The events about an endpoint that refuses a request and repeats one of its fields, as it is or encoded.
pub fn repeated(request: &HttpRequest) -> Vec<String> {
    let form = form_urlencoded::parse(request.body.as_deref().unwrap_or_default().as_bytes());
    let headers = request.headers.iter().map(|(_, value)| value.0.clone());
    let fields = form.map(|(_, value)| value.into_owned()).chain(headers);
    let bodies = fields.flat_map(|field| {
        let encoded = form_urlencoded::byte_serialize(field.as_bytes()).collect();
        [field, encoded]
    });
    let refused = |body| refusal(request, HttpResponse { status: 400, body }).to_string();
    bodies.map(refused).collect()
}

/// The request of a step.
///
/// # Panics
/// The step is another one.
pub fn call(step: Result<Step, IdentityError>) -> HttpRequest {
    match step {
        Ok(Step::Call(request)) => request,
        _ => panic!("another step"),
    }
}

/// The token of the last step, and the second in which it ends.
///
/// # Panics
/// The step is another one.
pub fn token(step: Result<Step, IdentityError>) -> (String, i64) {
    match step {
        Ok(Step::Done(Grant {
            pass: Pass::Token(Secret(token)),
            until,
        })) => (token, until.as_second()),
        _ => panic!("another step"),
    }
}
