//! The evidence of a record: compressed in the object, and never too large for it.

use base64::{Engine, engine::general_purpose::STANDARD};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::api::release::{Evidence, Look};

/// The most looks, calls and moments in a record.
const ENTRIES: usize = 100;
/// The longest text of the compressed evidence, in bytes.
const PACKED: usize = 32 * 1024;
/// The most bytes that are unpacked: an object that someone else wrote may hold anything.
const UNPACKED: usize = 4 * 1024 * 1024;
/// The unpacked text grows by this many bytes at a time.
const PART: usize = 64 * 1024;

/// Compresses the evidence. If it is too long, leaves out entries: first what passed, then what is old.
pub fn pack(evidence: &Evidence) -> Option<String> {
    let mut packed = packed(evidence)?;
    let mut rest = evidence.clone();
    let mut keep = ENTRIES;
    while packed.len() > PACKED && keep > 0 {
        keep /= 2;
        keep_newest(&mut rest, keep);
        packed = self::packed(&rest)?;
    }
    (packed.len() <= PACKED).then_some(packed)
}

fn packed(evidence: &Evidence) -> Option<String> {
    let json = serde_json::to_vec(evidence).ok()?;
    // Data that cannot be compressed grows by a few bytes.
    let mut packed = Vec::with_capacity(json.len() + json.len() / 100 + 100);
    let mut compress = Compress::new(Compression::default(), true);
    let status = compress.compress_vec(&json, &mut packed, FlushCompress::Finish);
    matches!(status, Ok(Status::StreamEnd)).then(|| STANDARD.encode(packed))
}

/// Reads compressed evidence; `None` if it is not evidence.
pub fn unpack(packed: &str) -> Option<Evidence> {
    let bytes = STANDARD.decode(packed).ok()?;
    let mut json = Vec::new();
    let mut decompress = Decompress::new(true);
    loop {
        json.reserve(PART);
        let read = usize::try_from(decompress.total_in()).ok()?;
        let (rest, before) = (bytes.get(read..)?, json.len());
        let status = decompress.decompress_vec(rest, &mut json, FlushDecompress::None);
        match status.ok()? {
            Status::StreamEnd => break,
            _ if json.len() == before || json.len() > UNPACKED => return None,
            Status::Ok | Status::BufError => {}
        }
    }
    serde_json::from_slice(&json).ok()
}

/// Leaves out what is too much.
pub fn thin(evidence: &mut Evidence) {
    keep_newest(evidence, ENTRIES);
}

fn keep_newest(evidence: &mut Evidence, most: usize) {
    let mut left_out = 0;
    let looks = &mut evidence.looks;
    while looks.len() > most {
        let passed = looks.iter().position(Look::passed);
        looks.remove(passed.unwrap_or(0));
        left_out += 1;
    }
    let hooks = &mut evidence.hooks;
    while hooks.len() > most {
        let passed = hooks
            .iter()
            .position(|call| call.status.is_some_and(|status| status < 300));
        hooks.remove(passed.unwrap_or(0));
        left_out += 1;
    }
    let timeline = &mut evidence.timeline;
    // The first moment tells when the run began.
    while timeline.len() > most.max(1) {
        timeline.remove(1);
        left_out += 1;
    }
    evidence.left_out += left_out;
}
