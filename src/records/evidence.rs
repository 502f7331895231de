//! The evidence of a record: it is compressed, and limited so that it fits into the object.

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine, engine::general_purpose::STANDARD};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::api::release::{HookCall, Measurement, RunEvidence};

/// The most measurements, calls and moments in a record.
const ENTRIES: usize = 100;
/// The longest text of the compressed evidence, in bytes.
const PACKED: usize = 32 * 1024;
/// The most bytes that are unpacked, because another actor may have written the object.
const UNPACKED: usize = 512 * 1024;
/// The unpacked text grows by this many bytes at a time.
const PART: usize = 64 * 1024;

/// Compresses the evidence. If it is too long, leaves out entries: first the passed ones, then the oldest.
pub fn pack(evidence: &RunEvidence) -> Option<String> {
    let mut packed = packed(evidence)?;
    let mut rest = evidence.clone();
    let mut keep = ENTRIES;
    while packed.len() > PACKED && keep > 0 {
        keep /= 2;
        keep_newest(&mut rest, keep);
        without_unused_metrics(&mut rest);
        // The queries are the longest texts, so they are cut.
        for metric in &mut rest.metrics {
            let mut ends = (0..=keep * 20).rev();
            let end = ends.find(|end| metric.query.is_char_boundary(*end));
            metric.query.truncate(end.unwrap_or(0));
        }
        packed = self::packed(&rest)?;
    }
    (packed.len() <= PACKED).then_some(packed)
}

fn packed(evidence: &RunEvidence) -> Option<String> {
    let json = serde_json::to_vec(evidence).ok()?;
    // Data that cannot be compressed grows by a few bytes.
    let mut packed = Vec::with_capacity(json.len() + json.len() / 100 + 100);
    let mut compress = Compress::new(Compression::default(), true);
    let status = compress.compress_vec(&json, &mut packed, FlushCompress::Finish);
    matches!(status, Ok(Status::StreamEnd)).then(|| STANDARD.encode(packed))
}

/// Reads compressed evidence; `None` if it is not evidence.
pub fn unpack(packed: &str) -> Option<RunEvidence> {
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

/// Leaves out entries, so that each list has at most `most`.
pub fn thin(evidence: &mut RunEvidence) {
    keep_newest(evidence, ENTRIES);
}

fn keep_newest(evidence: &mut RunEvidence, most: usize) {
    let has_passed = |call: &HookCall| call.status.is_some_and(|status| status < 300);
    let left_out = leave_out(&mut evidence.measurements, most, Measurement::passed)
        + leave_out(&mut evidence.hooks, most, has_passed)
        + leave_out(&mut evidence.timeline, most, |_| true);
    let left_out = i64::try_from(left_out).unwrap_or(i64::MAX);
    evidence.left_out = evidence.left_out.saturating_add(left_out);
}

/// Leaves out the oldest entries that passed, and if these are not enough, the oldest of the others. Returns the number of them.
fn leave_out<T>(entries: &mut Vec<T>, most: usize, passed: impl Fn(&T) -> bool) -> usize {
    let excess = entries.len().saturating_sub(most);
    let mut left = excess;
    entries.retain(|entry| {
        let is_kept = left == 0 || !passed(entry);
        left -= usize::from(!is_kept);
        is_kept
    });
    entries.drain(..left);
    excess
}

/// Leaves out the metrics of which no measurement is left, because their template has changed.
fn without_unused_metrics(evidence: &mut RunEvidence) {
    let measurements = evidence
        .measurements
        .iter()
        .flat_map(|measurement| &measurement.values);
    let used: BTreeSet<usize> = measurements.map(|value| value.metric).collect();
    let places: BTreeMap<usize, usize> =
        used.iter().enumerate().map(|(n, old)| (*old, n)).collect();
    let mut place = 0;
    evidence.metrics.retain(|_| {
        place += 1;
        used.contains(&(place - 1))
    });
    for value in evidence
        .measurements
        .iter_mut()
        .flat_map(|measurement| &mut measurement.values)
    {
        value.metric = places.get(&value.metric).copied().unwrap_or_default();
    }
}
