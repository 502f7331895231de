//! The parts that the tests of the clouds share.

use super::{Grant, IdentityError, Pass, Step, environment::Environment};
use crate::snapshot::{HttpRequest, Secret};

/// The environment of a pod with these variables.
pub fn environment(variables: &[(&str, &str)]) -> Environment {
    Environment::of(|name| {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    })
}

/// The request of a step.
pub fn call(step: Result<Step, IdentityError>) -> HttpRequest {
    match step {
        Ok(Step::Call(request)) => request,
        _ => panic!("another step"),
    }
}

/// The token of the last step, and the second in which it ends.
pub fn token(step: Result<Step, IdentityError>) -> (String, i64) {
    match step {
        Ok(Step::Done(Grant {
            pass: Pass::Token(Secret(token)),
            until,
        })) => (token, until.as_second()),
        _ => panic!("another step"),
    }
}
