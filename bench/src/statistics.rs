//! The little statistics that reports need beyond percentiles.

/// The element whose value is the median: the lower one of the two in the middle. Nothing of nothing.
pub fn median_by<T>(mut elements: Vec<T>, value: impl Fn(&T) -> f64) -> Option<T> {
    elements.sort_by(|left, right| value(left).total_cmp(&value(right)));
    let middle = elements.len().checked_sub(1)? / 2;
    elements.into_iter().nth(middle)
}

/// The median of values.
pub fn median(values: Vec<f64>) -> Option<f64> {
    median_by(values, |value| *value)
}

/// A figure as people read it: three significant digits, thousands separated.
pub fn shown(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 100.0 || size == 0.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        size if size >= 0.1 => 3,
        _ => 4,
    };
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let digits = whole.trim_start_matches('-');
    let mut grouped = String::with_capacity(text.len() + 4);
    if whole.starts_with('-') {
        grouped.push('-');
    }
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if !fraction.is_empty() {
        grouped.push('.');
        grouped.push_str(fraction);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_one_of_the_elements() {
        let of = |values: &[f64]| median(values.to_vec());
        assert_eq!(of(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(of(&[4.0, 1.0, 2.0, 3.0]), Some(2.0));
        assert_eq!(of(&[7.0]), Some(7.0));
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[f64::NAN, 1.0, 2.0]), Some(2.0));
    }

    #[test]
    fn figures_are_shown_with_three_digits() {
        for (value, text) in [
            (0.0, "0"),
            (1_234_567.8, "1,234,568"),
            (999.6, "1,000"),
            (123.4, "123"),
            (45.67, "45.7"),
            (1.234, "1.23"),
            (0.5, "0.500"),
            (0.0213, "0.0213"),
            (-1_500.0, "-1,500"),
        ] {
            assert_eq!(shown(value), text);
        }
    }
}
