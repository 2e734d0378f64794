use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::time;
use super::wire::Wire;

/// Encodes `value` for the query protocol: members become elements, items become elements named
/// `member`.
pub(super) fn write(out: &mut String, value: &Wire) {
    match value {
        // No response of this protocol contains records.
        Wire::Null | Wire::Record(_) => {}
        Wire::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Wire::Integer(value) => out.push_str(&value.to_string()),
        Wire::Float(value) => out.push_str(&value.to_string()),
        Wire::Time(time) => out.push_str(&time::text(*time)),
        Wire::Text(text) => out.push_str(&escape(text)),
        Wire::Bytes(bytes) => STANDARD.encode_string(bytes, out),
        Wire::List(items) => items.iter().for_each(|item| element(out, "member", item)),
        Wire::Map(members) => {
            for (name, value) in members.iter().filter(|(_, value)| !matches!(value, Wire::Null)) {
                element(out, name, value);
            }
        }
    }
}

fn element(out: &mut String, name: &str, value: &Wire) {
    out.extend(["<", name, ">"]);
    write(out, value);
    out.extend(["</", name, ">"]);
}

/// Escapes the text of an element or attribute. Characters that XML cannot represent are dropped.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            // A parser would turn it into a line feed.
            '\r' => escaped.push_str("&#13;"),
            '\t' | '\n' => escaped.push(character),
            control if control < ' ' || matches!(control, '\u{FFFE}' | '\u{FFFF}') => {}
            character => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn maps_and_lists_become_elements() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_204_849_250);
        let mut out = String::new();
        write(
            &mut out,
            &Wire::map([
                ("Text", "a <b> & \"c\"\u{1}".into()),
                ("Absent", Wire::Null),
                ("Empty", Wire::list([])),
                ("Time", time.into()),
                ("List", Wire::list([Wire::Integer(-1), true.into(), 1.5.into()])),
                ("Maps", Wire::list([Wire::map([("Name", "n".into())])])),
            ]),
        );
        assert_eq!(
            out,
            "<Text>a &lt;b&gt; &amp; &quot;c&quot;</Text><Empty></Empty><Time>2026-11-20T20:00:49.250Z</Time>\
             <List><member>-1</member><member>true</member><member>1.5</member></List>\
             <Maps><member><Name>n</Name></member></Maps>"
        );
    }
}
