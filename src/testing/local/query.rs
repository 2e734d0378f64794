use std::borrow::Cow;

use bytes::Bytes;

use super::protocol::ApiError;
use super::wire::Wire;
use super::xml;
use crate::testing::stream::{ErrorCode, ServiceError};

/// Deeper nesting than in any real request is rejected.
const DEPTH_MAX: usize = 16;

/// The APIs that use form fields, by their versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Api {
    CloudWatch,
    Sts,
}

impl Api {
    /// The API whose version is in the request.
    pub(super) fn of_version(version: &str) -> Option<Self> {
        match version {
            "2010-08-01" => Some(Self::CloudWatch),
            "2011-06-15" => Some(Self::Sts),
            _ => None,
        }
    }

    fn namespace(self) -> &'static str {
        match self {
            Self::CloudWatch => "http://monitoring.amazonaws.com/doc/2010-08-01/",
            Self::Sts => "https://sts.amazonaws.com/doc/2011-06-15/",
        }
    }
}

/// Parses form fields such as `MetricData.member.1.MetricName=a` into maps and lists.
pub(super) fn decode(body: &[u8]) -> Result<Wire, ServiceError> {
    let text = std::str::from_utf8(body).map_err(|_| invalid("The body is not UTF-8."))?;
    let mut root = Wire::Map(Vec::new());
    for field in text.split('&').filter(|field| !field.is_empty()) {
        let (name, value) = field.split_once('=').unwrap_or((field, ""));
        let (name, value) = (unescape(name)?, unescape(value)?);
        let path: Vec<&str> = name.split('.').filter(|part| *part != "member").collect();
        if path.len() > DEPTH_MAX {
            return Err(invalid("A field is nested too deeply."));
        }
        set(&mut root, &path, value);
    }
    Ok(root)
}

/// Sets the value at `path`, where numbers count list items from 1. SDKs write items in order.
fn set(at: &mut Wire, path: &[&str], value: String) {
    let Some((part, rest)) = path.split_first() else {
        *at = Wire::Text(value);
        return;
    };
    if let Ok(position) = part.parse::<usize>() {
        if !matches!(at, Wire::List(_)) {
            *at = Wire::List(Vec::new());
        }
        let Wire::List(items) = at else { return };
        if position == items.len() + 1 {
            items.push(Wire::Null);
        }
        if let Some(item) = position.checked_sub(1).and_then(|index| items.get_mut(index)) {
            set(item, rest, value);
        }
        return;
    }
    if !matches!(at, Wire::Map(_)) {
        *at = Wire::Map(Vec::new());
    }
    let Wire::Map(members) = at else { return };
    let index = members.iter().position(|(name, _)| name == part).unwrap_or_else(|| {
        members.push((Cow::Owned((*part).to_owned()), Wire::Null));
        members.len() - 1
    });
    if let Some((_, member)) = members.get_mut(index) {
        set(member, rest, value);
    }
}

/// Decodes percent-encoding and `+` for a space.
fn unescape(text: &str) -> Result<String, ServiceError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                let (high, low) = (digit(), digit());
                let value = high.zip(low).map(|(high, low)| high * 16 + low);
                value
                    .and_then(|value| u8::try_from(value).ok())
                    .ok_or_else(|| invalid("A field has an invalid escape."))?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).map_err(|_| invalid("A field is not UTF-8."))
}

pub(super) fn encode_success(api: Api, operation: &str, output: &Wire) -> Bytes {
    let mut result = String::new();
    if !matches!(output, Wire::Null) {
        result.extend(["<", operation, "Result>"]);
        xml::write(&mut result, output);
        result.extend(["</", operation, "Result>"]);
    }
    let namespace = api.namespace();
    Bytes::from(format!(
        "<{operation}Response xmlns=\"{namespace}\">{result}<ResponseMetadata><RequestId>local</RequestId>\
         </ResponseMetadata></{operation}Response>"
    ))
}

pub(super) fn encode_failure(api: Api, error: &ApiError) -> Bytes {
    let (code, message) = (xml::escape(error.query_code()), xml::escape(&error.message));
    let namespace = api.namespace();
    Bytes::from(format!(
        "<ErrorResponse xmlns=\"{namespace}\"><Error><Type>Sender</Type><Code>{code}</Code>\
         <Message>{message}</Message></Error><RequestId>local</RequestId></ErrorResponse>"
    ))
}

fn invalid(message: &str) -> ServiceError {
    ErrorCode::Serialization.error(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbered_fields_become_lists() {
        let body = b"Action=PutMetricData&Namespace=a+b%2Fc&MetricData.member.1.MetricName=m\
                     &MetricData.member.1.Values.member.1=1.5&MetricData.member.1.Values.member.2=2\
                     &MetricData.member.2.MetricName=n";
        let read = decode(body).unwrap();
        assert_eq!(read.text("Namespace").unwrap(), Some("a b/c"));
        let data = read.items("MetricData").unwrap();
        let names: Vec<_> = data.iter().map(|datum| datum.required_text("MetricName").unwrap()).collect();
        assert_eq!(names, ["m", "n"]);
        let values: Vec<_> = data[0].items("Values").unwrap().iter().filter_map(Wire::float).collect();
        assert_eq!(values, [1.5, 2.0]);
    }

    #[test]
    fn invalid_input_is_refused_or_ignored() {
        assert!(decode(b"a=%zz").is_err());
        assert!(decode(&[0xFF]).is_err());
        assert!(decode("a.".repeat(100).as_bytes()).is_err());
        assert!(decode(b"a.99999999999.b=1&=&.=&a=1&a.b=2").is_ok());
    }
}
