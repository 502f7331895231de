//! The only way to the API server. No code outside this folder holds a client of kube. So each request has a deadline and is counted, and a
//! write is sent only while this process leads.
//!
//! | question | place |
//! | --- | --- |
//! | how is the API server found? | [`Connection`] |
//! | how is an object read or written? | [`Cluster`] |
//! | what is the deadline of a request, what are its errors? | `request` |
//! | who may write now? | [`Leadership`], which [`lease::Candidate`] grants |
//! | how does the command line of a person read, and ask for actions? | [`person`] |
//! | which clock counts? | that of the API server: `time` |
//! | how does the dashboard read and act for its visitors? | [`visitors`] |
//! | how does `plan` try writes that nobody makes? | [`trial`] |
//! | what is known without a request, and how do changes arrive? | [`cache`] |
//!
//! # Which writes are conditional
//!
//! All writes of objects and of the status of a Canary go through [`Cluster::apply`] and [`Cluster::commit`]. They are conditional on what
//! was observed: a create fails if the object exists, a replace and a status patch carry the resourceVersion, a JSON Patch begins with
//! tests. A write that fails because the object has changed is a [`ClusterError::Lost`]: the canary is observed and decided again. Only the
//! leader sends these writes.
//!
//! The exceptions:
//!
//! * Events (`events`): a repeated Event is counted up by a merge patch without a precondition. No decision reads an Event, and a count
//!   that is one too low does no harm. The leader sends them.
//! * Records of releases (`releases`): only the operator writes them, and no decision reads them. The leader sends them.
//! * The Lease (`lease`): it grants the right to write, so it cannot require that right. Its writes are conditional: they carry the
//!   resourceVersion. They are not counted in `flagger_rs_api_requests_total`.
//! * Calls of metric providers (`calls`): an Analysis of Keptn is created under a name that no other has, and deleted by this name. The
//!   leader sends them.
//! * Access reviews (`review`): a `SelfSubjectAccessReview` is a question in the form of a create. It stores nothing, so `flagger check`
//!   may send it without leading. So does `plan` (`trial`), whose writes are dry runs.
//! * Actions of a person (`person`, `visitors`): the command line and the dashboard write the annotation with the rights of the user, who
//!   needs no Lease. The patch carries the resourceVersion.
//!
//! Lists and watches of the cache only read. They are not counted, and a silent connection ends them instead of a deadline.

pub mod cache;
mod calls;
mod cluster;
mod connection;
mod events;
#[cfg(test)]
pub(in crate::shell) mod fake;
mod leadership;
pub mod lease;
pub mod person;
mod raw_object;
mod releases;
mod request;
mod review;
mod time;
pub mod trial;
pub mod visitors;

pub use cluster::{Clients, Cluster};
pub use connection::{ConnectError, Connection};
pub use leadership::Leadership;
pub use raw_object::RawObject;
pub use request::ClusterError;
