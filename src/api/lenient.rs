//! Lenient decoding of values that the CRDs accept and Flagger's types reject: one invalid field must not stop the watch of all Canaries.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::percent::Percent;

/// Reads any number as an integer: drops the fraction and clamps numbers out of range. Returns `None` for any other value.
pub fn integer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    Ok(truncated(&Value::deserialize(deserializer)?))
}

/// Like [`integer`], but returns 0 instead of `None`.
pub fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    Ok(truncated(&Value::deserialize(deserializer)?).unwrap_or(0))
}

/// Like [`integer`], for a list. Skips values that are not numbers.
pub fn integers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<i64>>, D::Error> {
    let values = Option::<Vec<Value>>::deserialize(deserializer)?;
    Ok(values.map(|values| values.iter().filter_map(truncated).collect()))
}

/// Reads a list of numbers. Skips values that are not numbers.
pub fn numbers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<f64>>, D::Error> {
    let values = Option::<Vec<Value>>::deserialize(deserializer)?;
    Ok(values.map(|values| values.iter().filter_map(Value::as_f64).collect()))
}

/// Reads a share in percent. Returns `None` for any other value.
pub fn percent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Percent>, D::Error> {
    let number = Value::deserialize(deserializer)?.as_f64();
    Ok(number.and_then(Percent::exact))
}

/// Reads `null` as the type's default.
pub fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "`as` saturates: this clamps numbers out of range"
)]
fn truncated(value: &Value) -> Option<i64> {
    value
        .as_i64()
        .or_else(|| value.as_f64().map(|number| number.trunc() as i64))
}
