//! Tests of kinesis-consumer with its default features, from outside: see `tests/`.
