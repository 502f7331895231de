//! A share in percent, to a tenth of a percent.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A share from 0 to 100 percent with at most one decimal place. In JSON it is an integer if it is whole, as in Flagger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent {
    tenths: u16,
}

impl Percent {
    /// 0 %
    pub const ZERO: Self = Self { tenths: 0 };
    /// 100 %
    pub const ALL: Self = Self { tenths: 1000 };

    /// The nearest share to a whole number of percents: 0 % if it is negative, 100 % if it is greater than 100.
    pub fn nearest(percent: i64) -> Self {
        u8::try_from(percent.clamp(0, 100)).map_or(Self::ZERO, Self::from)
    }

    /// A number of tenths of a percent. More than 1000 count as 1000.
    pub fn of_tenths(tenths: u64) -> Self {
        u16::try_from(tenths).map_or(Self::ALL, |tenths| Self {
            tenths: tenths.min(Self::ALL.tenths),
        })
    }

    /// The share that is this number; `None` unless it is from 0 to 100 and has at most one decimal place.
    pub fn exact(percent: f64) -> Option<Self> {
        // The shortest text of a number shows its decimal places.
        percent.to_string().parse().ok()
    }

    /// The number of tenths of a percent, from 0 to 1000.
    pub const fn tenths(self) -> u16 {
        self.tenths
    }

    /// Whether it has no decimal place.
    pub const fn is_whole(self) -> bool {
        self.tenths.is_multiple_of(10)
    }

    /// The whole number of percents, rounded up: it is 0 only if the share is 0.
    pub fn rounded_up(self) -> i64 {
        i64::from(self.tenths.div_ceil(10))
    }

    /// The share without its decimal place.
    #[must_use]
    pub const fn rounded_down(self) -> Self {
        Self {
            tenths: self.tenths - self.tenths % 10,
        }
    }

    /// The share as a part of 1.
    pub fn share(self) -> f64 {
        f64::from(self.tenths) / f64::from(Self::ALL.tenths)
    }

    /// The sum with another share, at most 100 %.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self::of_tenths(u64::from(self.tenths) + u64::from(other.tenths))
    }

    /// The share without another one; 0 % if the other one is greater.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self {
            tenths: self.tenths.saturating_sub(other.tenths),
        }
    }
}

/// A whole number of percents. More than 100 count as 100.
impl From<u8> for Percent {
    fn from(percent: u8) -> Self {
        Self::of_tenths(10 * u64::from(percent))
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, tenth) = (self.tenths / 10, self.tenths % 10);
        if tenth == 0 {
            whole.fmt(f)
        } else {
            f.pad(&format!("{whole}.{tenth}"))
        }
    }
}

/// A text is no share: see [`Percent::exact`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no number from 0 to 100 with at most one decimal place")]
pub struct NoPercent;

impl FromStr for Percent {
    type Err = NoPercent;

    fn from_str(text: &str) -> Result<Self, NoPercent> {
        let (whole, tenth) = text.split_once('.').unwrap_or((text, "0"));
        let digits = format!("{whole}{tenth}");
        if whole.is_empty()
            || tenth.len() != 1
            || !digits.bytes().all(|digit| digit.is_ascii_digit())
        {
            return Err(NoPercent);
        }
        let tenths: u64 = digits.parse().map_err(|_| NoPercent)?;
        if tenths > u64::from(Self::ALL.tenths) {
            return Err(NoPercent);
        }
        Ok(Self::of_tenths(tenths))
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.is_whole() {
            serializer.serialize_u16(self.tenths / 10)
        } else {
            serializer.serialize_f64(f64::from(self.tenths) / 10.0)
        }
    }
}

/// Reads the nearest share: a number that another actor has changed must not hide the rest of an object.
impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = f64::deserialize(deserializer)?.clamp(0.0, 100.0);
        Ok(format!("{number:.1}").parse().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_tenth_is_read_as_it_is_written_and_a_whole_number_is_an_integer() {
        for tenths in 0..=1000 {
            let percent = Percent::of_tenths(tenths);
            assert_eq!(u64::from(percent.tenths()), tenths);
            assert_eq!(percent.to_string().parse(), Ok(percent));
            let json = serde_json::to_string(&percent).unwrap();
            assert_eq!(json, percent.to_string());
            assert_eq!(serde_json::from_str::<Percent>(&json).unwrap(), percent);
            let number = json.parse().unwrap();
            assert_eq!(Percent::exact(number), Some(percent));
        }
    }

    #[test]
    fn a_number_that_is_no_share_with_one_decimal_place_is_refused() {
        for number in [
            -0.1,
            100.1,
            0.15,
            0.01,
            1e-9,
            1e300,
            f64::NAN,
            f64::INFINITY,
            65_600.0,
        ] {
            assert_eq!(Percent::exact(number), None, "{number}");
        }
        for text in ["", ".", "1.", ".1", "+1", "1.00", "0.1 ", "1e1"] {
            assert_eq!(text.parse::<Percent>(), Err(NoPercent), "{text}");
        }
    }

    #[test]
    fn a_number_of_another_actor_is_read_as_the_nearest_share() {
        for (number, tenths) in [
            (json!(-5), 0),
            (json!(i64::MIN), 0),
            (json!(1e300), 1000),
            (json!(0.04), 0),
            (json!(0.26), 3),
            (json!(99.99), 1000),
        ] {
            let read: Percent = serde_json::from_value(number.clone()).unwrap();
            assert_eq!(read, Percent::of_tenths(tenths), "{number}");
        }
    }

    #[test]
    fn a_share_is_rounded_up_so_that_zero_means_no_request() {
        let rounded = [0, 1, 9, 10, 11, 999, 1000].map(|it| Percent::of_tenths(it).rounded_up());
        assert_eq!(rounded, [0, 1, 1, 1, 2, 100, 100]);
        let rounded = [0, 9, 10, 999].map(|it| Percent::of_tenths(it).rounded_down());
        assert_eq!(rounded, [0, 0, 1, 99].map(Percent::from));
        assert_eq!(
            [-1, 0, 7, 100, 101, i64::MAX].map(Percent::nearest),
            [0, 0, 7, 100, 100, 100].map(Percent::from)
        );
        assert_eq!(Percent::of_tenths(u64::MAX), Percent::ALL);
        assert_eq!(
            format!("{:>4}|{:>4}", Percent::from(7), Percent::of_tenths(5)),
            "   7| 0.5"
        );
    }
}
