//! The CRDs: fresh, Flagger's to the field, and friendly to every manifest that users have.

mod corpus;
mod examples;
mod table;

pub use corpus::{accepted_refused_and_kept_whole, examples, lost};
