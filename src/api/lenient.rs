//! Decoding of what the CRDs let in and Flagger's own types would choke on: one odd field must not stop the watch of all canaries.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A whole number from any number: fractions are cut off, what is out of range is clamped, anything else counts as absent.
pub fn integer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    Ok(whole(&Value::deserialize(deserializer)?))
}

/// As [`integer`], with 0 for what is absent.
pub fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    Ok(whole(&Value::deserialize(deserializer)?).unwrap_or(0))
}

/// As [`integer`], for a list.
pub fn integers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<i64>>, D::Error> {
    let values = Option::<Vec<Value>>::deserialize(deserializer)?;
    Ok(values.map(|values| values.iter().filter_map(whole).collect()))
}

/// The value's own default where the field is `null`.
pub fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "`as` saturates, which is the clamping wanted here"
)]
fn whole(value: &Value) -> Option<i64> {
    value
        .as_i64()
        .or_else(|| value.as_f64().map(|number| number.trunc() as i64))
}
