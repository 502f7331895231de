//! The nouns we see: what was observed of the cluster, and the values that describe what to do to it.

pub mod effect;
pub mod http;
pub mod weights;

pub use effect::{Effect, Kind, ObjectRef};
pub use http::{HttpRequest, HttpResponse, Secret};
pub use weights::Weights;
