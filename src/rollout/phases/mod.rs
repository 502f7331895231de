//! One file per phase of a release, or per group of phases (Flagger: `pkg/controller/scheduler.go`).
//!
//! | phase | file |
//! | --- | --- |
//! | Initializing | [`bootstrap`] |
//! | Initialized, Waiting, Succeeded, Failed | [`idle`] |
//! | Progressing, WaitingPromotion | [`analysis`], [`comparison`], [`advance`], [`skip`] |
//! | Promoting, Finalising | [`promotion`] |
//! | Terminating | [`deletion`] |
//!
//! [`restore`] repairs the primary after a failed promotion. [`new_revision`], [`finish_rollback`] and [`end`] begin, abandon and end a run
//! in any phase. [`waiting`] records why a version waits.

pub mod advance;
pub mod analysis;
pub mod bootstrap;
pub mod comparison;
pub mod deletion;
pub mod end;
pub mod finish_rollback;
pub mod idle;
pub mod new_revision;
pub mod promotion;
pub mod restore;
pub mod skip;
pub mod waiting;
