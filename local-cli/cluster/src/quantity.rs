//! Resource quantities (`250m`, `1.5Gi`, `2e3`), enough to compare a quota with a pod.

/// A quantity in thousandths of its unit; `None` when it is none.
pub(crate) fn milli(text: &str) -> Option<i128> {
    let text = text.trim();
    let digits = text.find(|c: char| !matches!(c, '0'..='9' | '.' | '-' | '+')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    if number.is_empty() {
        return None;
    }
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let mut value: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // Six decimals are more than any quota has.
    let fraction: String = fraction.chars().chain("000000".chars()).take(6).collect();
    value = value.checked_mul(1_000_000)?;
    value += fraction.parse::<i128>().ok()? * if number.starts_with('-') { -1 } else { 1 };
    let micro = match suffix {
        "" => value,
        "n" => value / 1_000_000_000,
        "u" => value / 1_000_000,
        "m" => value / 1_000,
        "k" => value.checked_mul(1_000)?,
        "M" => value.checked_mul(1_000_000)?,
        "G" => value.checked_mul(1_000_000_000)?,
        "T" => value.checked_mul(1_000_000_000_000)?,
        "P" => value.checked_mul(1_000_000_000_000_000)?,
        "Ki" => value.checked_mul(1 << 10)?,
        "Mi" => value.checked_mul(1 << 20)?,
        "Gi" => value.checked_mul(1 << 30)?,
        "Ti" => value.checked_mul(1 << 40)?,
        "Pi" => value.checked_mul(1 << 50)?,
        exponent => {
            let exponent: u32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            value.checked_mul(10_i128.checked_pow(exponent)?)?
        }
    };
    Some(micro / 1_000)
}

#[cfg(test)]
mod tests {
    use super::milli;

    #[test]
    fn quantities_as_kubernetes_writes_them() {
        for (text, expected) in [
            ("1", Some(1_000)),
            ("250m", Some(250)),
            ("0.5", Some(500)),
            ("1.5Gi", Some(1_610_612_736_000)),
            ("64Mi", Some(67_108_864_000)),
            ("2e3", Some(2_000_000)),
            ("1k", Some(1_000_000)),
            ("0", Some(0)),
            ("", None),
            ("many", None),
            ("1x", None),
        ] {
            assert_eq!(milli(text), expected, "{text}");
        }
    }
}
