use std::str::FromStr;

use crate::config::{LeaseConfig, ManagementConfig, with_settings};
use crate::error::{Error, ErrorKind};
use crate::types::StartStrategy;

const LEASES_TO_ACQUIRE: &str = "KINESIS_LEASES_TO_ACQUIRE";
const MAX_LEASES: &str = "KINESIS_MAX_LEASES";
const START_STRATEGY: &str = "KINESIS_START_STRATEGY";
const BATCH_LIMIT: &str = "KINESIS_BATCH_LIMIT";

/// The settings that deployments usually vary, as read from the environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// How many leases to take, and where to start.
    pub management: ManagementConfig,
    /// How records are fetched.
    pub lease_config: LeaseConfig,
}

with_settings!(Settings {
    with_management = management: ManagementConfig,
    with_lease_config = lease_config: LeaseConfig,
});

impl Settings {
    /// Reads the environment; a variable that is not set leaves its default.
    ///
    /// | variable | value | default |
    /// |---|---|---|
    /// | `KINESIS_LEASES_TO_ACQUIRE` | 1 or more | 1 |
    /// | `KINESIS_MAX_LEASES` | 1 or more | unlimited |
    /// | `KINESIS_START_STRATEGY` | `LATEST`, `OLDEST` or `TIMESTAMP:<milliseconds since the epoch>` | `LATEST` |
    /// | `KINESIS_BATCH_LIMIT` | 1 to 10000 | 10000 |
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`], naming the variable, its value and what it may be.
    pub fn from_env() -> Result<Self, Error> {
        Self::from_variables(|name| match std::env::var(name) {
            Ok(value) => Ok(Some(value)),
            Err(std::env::VarError::NotPresent) => Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => Err(Error::new(
                ErrorKind::Invalid,
                format!("the environment variable {name} is not valid Unicode"),
            )),
        })
    }

    /// [`from_env`](Self::from_env) over any source of variables: pure, for tests and for settings
    /// kept elsewhere.
    ///
    /// # Errors
    ///
    /// As [`from_env`](Self::from_env), and whatever `variable` fails with.
    pub fn from_variables(variable: impl Fn(&str) -> Result<Option<String>, Error>) -> Result<Self, Error> {
        let mut settings = Self::default();
        if let Some(text) = variable(LEASES_TO_ACQUIRE)? {
            settings.management.leases_to_acquire =
                parse(LEASES_TO_ACQUIRE, &text, "a whole number of 1 or more", |&n| n >= 1)?;
        }
        if let Some(text) = variable(MAX_LEASES)? {
            settings.management.max_leases =
                parse(MAX_LEASES, &text, "a whole number of 1 or more", |&n| n >= 1)?;
        }
        if let Some(text) = variable(BATCH_LIMIT)? {
            let limit =
                parse(BATCH_LIMIT, &text, "a whole number from 1 to 10000", |n| (1..=10_000).contains(n))?;
            settings.lease_config = LeaseConfig::PollingConfig { limit };
        }
        if let Some(text) = variable(START_STRATEGY)? {
            settings.management.start_strategy = parse_start_strategy(&text).ok_or_else(|| {
                invalid(
                    START_STRATEGY,
                    &text,
                    "LATEST, OLDEST or TIMESTAMP:<milliseconds since the Unix epoch>",
                )
            })?;
        }
        Ok(settings)
    }
}

fn parse<T: FromStr>(
    name: &str,
    text: &str,
    expected: &str,
    is_allowed: impl Fn(&T) -> bool,
) -> Result<T, Error> {
    text.trim().parse().ok().filter(is_allowed).ok_or_else(|| invalid(name, text, expected))
}

fn parse_start_strategy(text: &str) -> Option<StartStrategy> {
    match text.trim() {
        "LATEST" => Some(StartStrategy::Latest),
        "OLDEST" => Some(StartStrategy::Oldest),
        other => other.strip_prefix("TIMESTAMP:")?.parse().ok().map(StartStrategy::Timestamp),
    }
}

fn invalid(name: &str, text: &str, expected: &str) -> Error {
    let shown: String = text.chars().take(40).collect();
    Error::new(
        ErrorKind::Invalid,
        format!("the environment variable {name} is {shown:?}; it must be {expected}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn from(variables: &[(&str, &str)]) -> Result<Settings, Error> {
        Settings::from_variables(|name| {
            Ok(variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
        })
    }

    #[test]
    fn an_empty_environment_gives_the_defaults() {
        assert_eq!(from(&[]).expect("valid"), Settings::default());
    }

    #[test]
    fn every_variable_is_read() {
        let settings = from(&[
            (LEASES_TO_ACQUIRE, "2"),
            (MAX_LEASES, "20"),
            (START_STRATEGY, "TIMESTAMP:1700000000123"),
            (BATCH_LIMIT, " 500 "),
        ])
        .expect("valid");
        let start_strategy = StartStrategy::Timestamp(1_700_000_000_123);
        assert_eq!(
            settings.management,
            ManagementConfig { leases_to_acquire: 2, max_leases: 20, start_strategy }
        );
        assert_eq!(settings.lease_config, LeaseConfig::PollingConfig { limit: 500 });
    }

    #[test]
    fn a_wrong_variable_is_named_with_what_it_may_be() {
        for (name, value) in [
            (LEASES_TO_ACQUIRE, "0"),
            (LEASES_TO_ACQUIRE, "two"),
            (MAX_LEASES, "-1"),
            (MAX_LEASES, ""),
            (BATCH_LIMIT, "0"),
            (BATCH_LIMIT, "10001"),
            (START_STRATEGY, "EARLIEST"),
            (START_STRATEGY, "TIMESTAMP:"),
            (START_STRATEGY, "TIMESTAMP:-5"),
        ] {
            let error = from(&[(name, value)]).expect_err(value);
            assert_eq!(error.kind(), ErrorKind::Invalid);
            let message = error.to_string();
            assert!(message.contains(name) && message.contains("it must be"), "{message}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_taken_or_refused_without_panic(text in ".{0,60}") {
            for name in [LEASES_TO_ACQUIRE, MAX_LEASES, START_STRATEGY, BATCH_LIMIT] {
                let _ = from(&[(name, &text)]);
            }
        }
    }
}
