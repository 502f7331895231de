//! `flagger dashboard` in Chromium, as its visitors see it.
//!
//! | question | file |
//! | --- | --- |
//! | does an open page follow a release, and can its visitor steer it? | `live.rs` |
//! | who comes in, and for how long? | `login.rs` |
//! | is the mouse needed? | `keys.rs` |
//! | do texts of others run, or break a page? | `hostile.rs` |
//! | can everybody read it, on each screen and on paper? | `screens.rs`, with the checks in `checks.js` |
//! | do the pictures of the documents show what they shall? | `pictures.rs` |
//! | does it work with a real API server and a real operator? | `cluster.rs` |
//!
//! `chromium.rs` drives Chromium by `webdriver.rs`, `dashboard.rs` starts the dashboard, and `objects.rs` has what the API server of
//! `tests/it/client/many_users.rs` shows. `BROWSER_SCREENSHOTS=png`, or `webp`, writes a picture of each page to `screenshots` in the folder `tmp` of
//! the target folder.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "the names of tests are their documentation, and a panic is how a test fails"
)]

mod chromium;
mod cluster;
mod dashboard;
#[path = "../files/mod.rs"]
mod files;
mod hostile;
mod keys;
mod live;
mod login;
#[path = "../it/client/many_users.rs"]
mod many_users;
mod objects;
mod pictures;
mod screens;
mod webdriver;
