//! Quantities of Kubernetes: `1500m`, `2Ki`, `1e3`.

/// The suffixes, and their factors.
const SUFFIXES: [(&str, f64); 15] = [
    ("Ki", 1024.0),
    ("Mi", 1_048_576.0),
    ("Gi", 1_073_741_824.0),
    ("Ti", 1_099_511_627_776.0),
    ("Pi", 1_125_899_906_842_624.0),
    ("Ei", 1_152_921_504_606_846_976.0),
    ("n", 1e-9),
    ("u", 1e-6),
    ("m", 1e-3),
    ("k", 1e3),
    ("M", 1e6),
    ("G", 1e9),
    ("T", 1e12),
    ("P", 1e15),
    ("E", 1e18),
];

/// Reads a quantity, approximately. Returns `None` for any other text.
pub fn read(text: &str) -> Option<f64> {
    let suffix = SUFFIXES.iter().find_map(|(suffix, factor)| {
        let number = text.strip_suffix(suffix)?;
        Some((number, *factor))
    });
    let has_suffix = suffix.is_some();
    let (number, factor) = suffix.unwrap_or((text, 1.0));
    let is_digit = |c: char| c.is_ascii_digit() || "+-.".contains(c);
    let is_plain = |text: &str| text.chars().all(is_digit);
    let is_number = match number.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => !has_suffix && is_plain(mantissa) && is_plain(exponent),
        None => is_plain(number),
    };
    // Factors below 1 are divisors, so that 1500m is exactly 1.5.
    let number: f64 = number.parse().ok().filter(|_| is_number)?;
    Some(if factor < 1.0 {
        number / (1.0 / factor).round()
    } else {
        number * factor
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_does() {
        for (text, value) in [
            ("0", 0.0),
            ("1.1111", 1.1111),
            ("-3", -3.0),
            ("1500m", 1.5),
            ("100u", 0.0001),
            ("7n", 7e-9),
            ("2k", 2e3),
            ("2Ki", 2048.0),
            ("1.5Gi", 1_610_612_736.0),
            ("3E", 3e18),
            ("1e3", 1000.0),
            ("12E-1", 1.2),
        ] {
            assert_eq!(read(text), Some(value), "{text}");
        }
    }

    #[test]
    fn any_other_text_is_no_quantity() {
        for text in [
            "", "m", "x", "NaN", "inf", "1 k", "1kk", "1e3k", "1ki", "0x1", "1e",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
