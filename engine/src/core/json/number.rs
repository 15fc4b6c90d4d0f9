//! Numbers: which a parse accepts, and how one is written.
//!
//! Strict input has only integers within ±(2^53 - 1). Older rooms also hold others, and their hashes depend on the
//! exact text. That text is what the reference homeserver writes: integers up to 64 bits as they are, floats in the
//! shortest form that reads back, with an exponent below 1e-4 and from 1e16 on. The specification's own example adds
//! that a whole number written with an exponent (`1e10`) is an integer.

use serde_json::Number;

use super::INTEGER_MAX;
use super::parse::{JsonError, Strictness};

/// Reads the number `text`, whose grammar has been checked; `at` is where it stands, for the error.
pub(super) fn read(text: &str, at: usize, strictness: Strictness) -> Result<Number, JsonError> {
    let fraction = text.contains('.');
    let exponent = text.contains(['e', 'E']);
    if strictness == Strictness::Strict {
        if fraction || exponent {
            return Err(JsonError::NotInteger { at });
        }
        if text == "-0" {
            return Err(JsonError::NegativeZero { at });
        }
        let value: i64 = text.parse().map_err(|_| JsonError::IntegerRange { at })?;
        return in_range(value).then(|| value.into()).ok_or(JsonError::IntegerRange { at });
    }
    if !fraction && !exponent {
        if let Ok(value) = text.parse::<i64>() {
            return Ok(value.into());
        }
        return text.parse::<u64>().map(Number::from).map_err(|_| JsonError::IntegerRange { at });
    }
    let value: f64 = text.parse().map_err(|_| JsonError::Syntax { at })?;
    if !fraction && value.fract() == 0.0 && value.abs() <= INTEGER_MAX as f64 {
        return Ok((value as i64).into());
    }
    Number::from_f64(value).ok_or(JsonError::IntegerRange { at })
}

/// Whether canonical JSON allows the integer.
pub(super) fn in_range(value: i64) -> bool {
    (-INTEGER_MAX..=INTEGER_MAX).contains(&value)
}

/// Appends `number` in its canonical text.
pub(super) fn write(out: &mut Vec<u8>, number: &Number) {
    if let Some(value) = number.as_u64() {
        write_unsigned(out, value);
    } else if let Some(value) = number.as_i64() {
        out.push(b'-');
        write_unsigned(out, value.unsigned_abs());
    } else if let Some(value) = number.as_f64() {
        write_float(out, value);
    }
}

/// Appends `value` in decimal.
pub fn write_unsigned(out: &mut Vec<u8>, value: u64) {
    /// Decimal digits of the largest `u64`, 18,446,744,073,709,551,615.
    const DIGITS_MAX: usize = 20;
    let mut digits = [0u8; DIGITS_MAX];
    let mut rest = value;
    let mut used = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
        used += 1;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(DIGITS_MAX - used..).unwrap_or_default());
}

/// Appends a float: shortest digits that read back, as Python's `repr` writes them.
fn write_float(out: &mut Vec<u8>, value: f64) {
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let text = if value != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
    } else if value.fract() == 0.0 {
        format!("{value}.0")
    } else {
        value.to_string()
    };
    out.extend_from_slice(text.as_bytes());
}
