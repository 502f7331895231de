//! The files that pages load. They are a part of the program: no page loads anything from another server.

use std::fmt::Write;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use sha2::{Digest, Sha256};

use crate::dashboard::Assets;

/// A file: its name, its media type, and its content.
type File = (&'static str, &'static str, &'static str);

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// All scripts, as one file. htmx starts as soon as the file has run: in a file of its own it could start before its extension and the script
/// of the pages have arrived, and the page would never follow changes. htmx and its extension are of the npm package `htmx.org`, under the
/// licence in `htmx-LICENSE.txt`.
const SCRIPTS: &str = concat!(
    include_str!("../../dashboard/assets/page.js"),
    "\n;\n",
    include_str!("../../dashboard/assets/htmx-4.0.1.min.js"),
    "\n;\n",
    include_str!("../../dashboard/assets/hx-sse-4.0.1.min.js"),
);

/// The files.
const FILES: [File; 3] = [
    (
        "style.css",
        "text/css; charset=utf-8",
        include_str!("../../dashboard/assets/style.css"),
    ),
    (
        "icon.svg",
        "image/svg+xml",
        include_str!("../../dashboard/assets/icon.svg"),
    ),
    ("page.js", SCRIPT, SCRIPTS),
];

/// The addresses of the files. Each has the checksum of its file, so that browsers may keep the file forever.
pub fn addresses() -> Assets {
    let address = |(name, _, content): &File| format!("/assets/{}/{name}", checksum(content));
    let [style, icon, scripts @ ..] = &FILES;
    Assets {
        style: address(style),
        icon: address(icon),
        scripts: scripts.iter().map(address).collect(),
    }
}

/// The answer for a file.
pub fn serve(sum: &str, name: &str) -> Response {
    let file = FILES
        .iter()
        .find(|file| file.0 == name && checksum(file.2) == sum);
    let Some((_, media_type, content)) = file else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let headers = [
        (header::CONTENT_TYPE, *media_type),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
    ];
    (headers, Body::from(*content)).into_response()
}

/// The beginning of the SHA-256 checksum.
fn checksum(content: &str) -> String {
    sha256(content).chars().take(16).collect()
}

fn sha256(content: &str) -> String {
    let digest = Sha256::digest(content.as_bytes());
    digest.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The files of others are those of the package.
    #[test]
    fn the_files_of_others_have_the_checksums_of_their_package() {
        for (content, expected) in [
            (
                include_str!("../../dashboard/assets/htmx-4.0.1.min.js"),
                "a0abb04f2f45a1f89d1d4844023245537e5e6014c87b144553e0607b4cc32130",
            ),
            (
                include_str!("../../dashboard/assets/hx-sse-4.0.1.min.js"),
                "18ef2761356ec1fe0bb6d92612315b37517a7c1e9856b661c5ae81fef239d103",
            ),
        ] {
            assert_eq!(sha256(content), expected);
            assert!(SCRIPTS.contains(content));
        }
    }
}
