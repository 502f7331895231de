//! Compression of cached objects. Objects of one kind are much alike, so with a common dictionary each takes little memory.

use std::cell::RefCell;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use serde_json::Value;

/// Phrases that objects of releases contain. With them an object shrinks to about a seventh.
const PHRASES: &[u8] = include_bytes!("phrases.txt");
/// The largest window of the format.
const WINDOW: u8 = 15;

/// A compressed object.
#[derive(Clone, Debug)]
pub struct Packed(std::sync::Arc<[u8]>);

impl Packed {
    /// Returns how many bytes the object takes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Decompresses and parses the object.
    pub fn value(&self) -> Value {
        let text = UNPACKER.with_borrow_mut(|state| unpack(&self.0, state));
        let text = text.unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }
}

/// Compresses objects one after another.
pub struct Packer {
    state: Compress,
    buffer: Vec<u8>,
}

impl Default for Packer {
    fn default() -> Self {
        Self {
            state: Compress::new_with_window_bits(Compression::new(6), false, WINDOW),
            buffer: Vec::new(),
        }
    }
}

impl Packer {
    /// Compresses JSON.
    pub fn pack(&mut self, text: &str) -> Packed {
        self.state.reset();
        self.buffer.clear();
        // Neither call fails, whatever the text is. The test below shows this.
        let _ = self.state.set_dictionary(PHRASES);
        self.buffer.reserve(text.len() + 64);
        let _ = self
            .state
            .compress_vec(text.as_bytes(), &mut self.buffer, FlushCompress::Finish);
        Packed(self.buffer.as_slice().into())
    }
}

thread_local! {
    /// Kept because creating one costs more than decompressing an object.
    static UNPACKER: RefCell<Decompress> = RefCell::new(Decompress::new_with_window_bits(false, WINDOW));
}

fn unpack(bytes: &[u8], state: &mut Decompress) -> Option<Vec<u8>> {
    state.reset(false);
    state.set_dictionary(PHRASES).ok()?;
    let mut text = Vec::with_capacity(8 * bytes.len() + 1024);
    loop {
        let read = usize::try_from(state.total_in()).ok()?;
        let rest = bytes.get(read..)?;
        match state
            .decompress_vec(rest, &mut text, FlushDecompress::Finish)
            .ok()?
        {
            Status::StreamEnd => return Some(text),
            Status::Ok | Status::BufError => text.reserve(text.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn decompression_restores_texts_of_any_length() {
        let mut packer = Packer::default();
        for length in [0, 1, 100, 10_000, 1_000_000] {
            let noise: String = (0_u32..length)
                .map(|i| char::from(b'!' + (i.wrapping_mul(2_654_435_761) >> 25) as u8 % 90))
                .collect();
            let object = json!({"apiVersion": "v1", "data": {"noise": noise, "zeros": "0".repeat(length as usize)}});
            assert_eq!(packer.pack(&object.to_string()).value(), object);
        }
    }

    #[test]
    fn an_object_of_a_release_shrinks_to_less_than_a_quarter() {
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web-primary", "namespace": "shop",
            "uid": "1b4e28ba-2fa1-11d2-883f-0016d3cca427", "resourceVersion": "123456", "creationTimestamp": "2026-01-02T03:04:05Z",
            "ownerReferences": [{"apiVersion": "flagger.app/v1beta1", "blockOwnerDeletion": true, "controller": true, "kind": "Canary",
                "name": "web", "uid": "6fa459ea-ee8a-3ca4-894e-db77e160355e"}]},
            "spec": {"clusterIP": "10.96.12.34", "clusterIPs": ["10.96.12.34"], "internalTrafficPolicy": "Cluster",
                "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "ports": [{"name": "http", "port": 80, "protocol": "TCP",
                "targetPort": 8080}], "selector": {"app": "web-primary"}, "sessionAffinity": "None", "type": "ClusterIP"},
            "status": {"loadBalancer": {}}})
        .to_string();
        let packed = Packer::default().pack(&service).len();
        assert!(packed * 4 < service.len(), "{packed} of {}", service.len());
    }
}
