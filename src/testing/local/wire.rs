use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::time;
use crate::testing::stream::{ErrorCode, ServiceError, StoredRecord};

/// A request or response body, independent of the protocol.
#[derive(Debug, Clone, Default)]
pub(super) enum Wire {
    #[default]
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    Bytes(Bytes),
    Time(SystemTime),
    List(Vec<Wire>),
    /// Members that are `Null` are omitted when encoded.
    Map(Vec<(Cow<'static, str>, Wire)>),
    /// A record with its cached encoding; only in responses.
    Record(Arc<StoredRecord>),
}

impl Wire {
    pub(super) fn map<const N: usize>(members: [(&'static str, Wire); N]) -> Self {
        Self::Map(members.into_iter().map(|(name, value)| (Cow::Borrowed(name), value)).collect())
    }

    pub(super) fn list(items: impl IntoIterator<Item = Wire>) -> Self {
        Self::List(items.into_iter().collect())
    }

    /// The member `name` of a map, unless it is absent or null.
    pub(super) fn get(&self, name: &str) -> Option<&Self> {
        let Self::Map(members) = self else { return None };
        let (_, value) = members.iter().find(|(member, _)| member == name)?;
        (!matches!(value, Self::Null)).then_some(value)
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, ServiceError> {
        self.member(name, |value| match value {
            Self::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    pub(super) fn required_text(&self, name: &str) -> Result<&str, ServiceError> {
        self.text(name)?.ok_or_else(|| missing(name))
    }

    pub(super) fn boolean(&self, name: &str) -> Result<Option<bool>, ServiceError> {
        self.member(name, |value| match value {
            Self::Bool(value) => Some(*value),
            Self::Text(text) => text.parse().ok(),
            _ => None,
        })
    }

    pub(super) fn integer(&self, name: &str) -> Result<Option<i64>, ServiceError> {
        self.member(name, |value| match value {
            Self::Integer(value) => Some(*value),
            Self::Text(text) => text.parse().ok(),
            _ => None,
        })
    }

    /// An integer in the range of the target type; others are invalid, as they are for the service.
    pub(super) fn number<T: TryFrom<i64>>(&self, name: &str) -> Result<Option<T>, ServiceError> {
        let convert = |value| {
            T::try_from(value)
                .map_err(|_| ErrorCode::Validation.error(format!("{name} must not be {value}.")))
        };
        self.integer(name)?.map(convert).transpose()
    }

    pub(super) fn bytes(&self, name: &str) -> Result<Option<Bytes>, ServiceError> {
        self.member(name, |value| match value {
            Self::Bytes(bytes) => Some(bytes.clone()),
            Self::Text(text) => STANDARD.decode(text).ok().map(Bytes::from),
            _ => None,
        })
    }

    pub(super) fn time(&self, name: &str) -> Result<Option<SystemTime>, ServiceError> {
        self.member(name, |value| match value {
            Self::Time(time) => Some(*time),
            Self::Text(text) => time::parse(text),
            other => other.float().map(time::from_seconds),
        })
    }

    /// The value as a number, if it is one or a string that contains one.
    pub(super) fn float(&self) -> Option<f64> {
        match self {
            Self::Float(value) => Some(*value),
            #[expect(clippy::cast_precision_loss, reason = "as precise as JSON is")]
            Self::Integer(value) => Some(*value as f64),
            Self::Text(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// The items of the list `name`; empty if it is absent.
    pub(super) fn items(&self, name: &str) -> Result<&[Self], ServiceError> {
        let items = self.member(name, |value| match value {
            Self::List(items) => Some(items.as_slice()),
            _ => None,
        })?;
        Ok(items.unwrap_or_default())
    }

    /// The strings of the list `name`; empty if it is absent.
    pub(super) fn texts(&self, name: &str) -> Result<Vec<&str>, ServiceError> {
        let mut texts = Vec::new();
        for item in self.items(name)? {
            let Self::Text(text) = item else { return Err(wrong_type(name)) };
            texts.push(text.as_str());
        }
        Ok(texts)
    }

    fn member<'a, T>(
        &'a self,
        name: &str,
        convert: impl FnOnce(&'a Self) -> Option<T>,
    ) -> Result<Option<T>, ServiceError> {
        self.get(name).map(|value| convert(value).ok_or_else(|| wrong_type(name))).transpose()
    }
}

pub(super) fn missing(name: &str) -> ServiceError {
    ErrorCode::Validation.error(format!(
        "1 validation error detected: Value null at '{name}' failed to satisfy constraint: Member must not be \
         null"
    ))
}

fn wrong_type(name: &str) -> ServiceError {
    ErrorCode::Serialization.error(format!("{name} has a value of the wrong type."))
}

impl From<&str> for Wire {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Wire {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Wire {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<f64> for Wire {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<usize> for Wire {
    fn from(value: usize) -> Self {
        Self::Integer(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl From<u64> for Wire {
    fn from(value: u64) -> Self {
        Self::Integer(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl From<SystemTime> for Wire {
    fn from(time: SystemTime) -> Self {
        Self::Time(time)
    }
}

impl<T: Into<Wire>> From<Option<T>> for Wire {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}
