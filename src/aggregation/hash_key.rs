/// Parses explicit hash keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HashKey {
    /// A hash key.
    Valid(u128),
    /// A number outside the hash key space: negative, or not below 2^128.
    Unreachable,
}

/// Parses an explicit hash key as Java's `BigInteger` does, which is what KCL uses: an optional sign and
/// at least one decimal digit of any script of the Basic Multilingual Plane. `None` if it is not a
/// number.
pub(super) fn parse_hash_key(text: &str) -> Option<HashKey> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if digits.is_empty() {
        return None;
    }
    let mut value = Some(0_u128);
    for character in digits.chars() {
        let digit = digit_value(character)?;
        value = value.and_then(|value| value.checked_mul(10)?.checked_add(digit));
    }
    Some(match value {
        Some(value) if value == 0 || !negative => HashKey::Valid(value),
        _ => HashKey::Unreachable,
    })
}

fn digit_value(character: char) -> Option<u128> {
    if let Some(digit) = character.to_digit(10) {
        return Some(u128::from(digit));
    }
    let code = u32::from(character);
    ZEROS.iter().find_map(|&zero| (zero..zero + 10).contains(&code).then(|| u128::from(code - zero)))
}

/// The zeros of the scripts that have decimal digits (Unicode category Nd, up to U+FFFF); the other nine
/// digits follow each zero.
const ZEROS: [u32; 36] = [
    0x0660, 0x06F0, 0x07C0, 0x0966, 0x09E6, 0x0A66, 0x0AE6, 0x0B66, 0x0BE6, 0x0C66, 0x0CE6, 0x0D66, 0x0DE6,
    0x0E50, 0x0ED0, 0x0F20, 0x1040, 0x1090, 0x17E0, 0x1810, 0x1946, 0x19D0, 0x1A80, 0x1A90, 0x1B50, 0x1BB0,
    0x1C40, 0x1C50, 0xA620, 0xA8D0, 0xA900, 0xA9D0, 0xA9F0, 0xAA50, 0xABF0, 0xFF10,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_parse_as_in_javas_big_integer() {
        let max = u128::MAX.to_string();
        let zeros_then_max = format!("{}{max}", "0".repeat(1000));
        for (text, value) in [
            ("0", 0),
            ("00", 0),
            ("-0", 0),
            ("+5", 5),
            ("-000", 0),
            ("1٣", 13),
            ("123", 123),
            (&max, u128::MAX),
            (&zeros_then_max, u128::MAX),
        ] {
            assert_eq!(parse_hash_key(text), Some(HashKey::Valid(value)), "{text}");
        }
        let above = "340282366920938463463374607431768211456";
        for text in ["-1", above, "-340282366920938463463374607431768211456", &"9".repeat(5000)] {
            assert_eq!(parse_hash_key(text), Some(HashKey::Unreachable), "{text}");
        }
        for text in ["", "-", "+", "+-1", "--1", "1-", "1e5", " 5", "5 ", "0x1", "undefined", "½", "𝟎", "9a"]
        {
            assert_eq!(parse_hash_key(text), None, "{text}");
        }
    }

    #[test]
    fn one_extra_character_makes_any_number_invalid() {
        assert_eq!(parse_hash_key(&format!("{}x", "9".repeat(100))), None);
    }
}
