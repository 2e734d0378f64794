//! The files that ARCHITECTURE.md lists as pure are: no async, no I/O, no clock, no randomness, lock or log of
//! their own. What they decide follows from what they are given.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Where the list begins and ends in ARCHITECTURE.md. In it, files and folders of `src` stand in backticks,
/// without `.rs`; braces stand for several.
const LIST: (&str, &str) = ("<!-- pure files -->", "<!-- end of pure files -->");

/// Identifiers that have no place in a pure file, and why.
const FORBIDDEN: [(&str, &[&str]); 7] = [
    (
        "it waits",
        &["async", "await", "Future", "tokio", "tokio_util", "futures_util", "async_trait", "backon"],
    ),
    (
        "it does I/O",
        &["std::fs", "std::io", "std::net", "std::env", "std::process", "hyper", "println", "eprintln"],
    ),
    ("it reads a clock", &["Clock", "Instant", "SystemTime::now", "UNIX_EPOCH::elapsed"]),
    (
        "it draws by itself",
        &[
            "fastrand::Rng::new",
            "fastrand::Rng::with_seed",
            "Rng::new",
            "Rng::with_seed",
            "RandomState",
            "Seeds",
        ],
    ),
    (
        "it shares state",
        &[
            "Mutex",
            "RwLock",
            "RefCell",
            "Condvar",
            "Notify",
            "thread_local",
            "std::sync::atomic",
            "std::thread",
        ],
    ),
    ("it logs", &["tracing", "log", "EventSink"]),
    (
        "it knows a port or an adapter",
        &[
            "StreamApi",
            "LeaseStore",
            "aws_config",
            "aws_sdk_kinesis",
            "aws_sdk_dynamodb",
            "aws_sdk_cloudwatch",
            "aws_smithy_types",
        ],
    ),
];

/// What of `fastrand` may be named: the generator that is handed in.
const FASTRAND: &str = "fastrand::Rng";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The entries of the list: `lease/{row,codec}` is two of them.
fn listed(architecture: &str) -> Result<Vec<String>, String> {
    let (begin, end) = LIST;
    let (_, rest) = architecture.split_once(begin).ok_or(format!("ARCHITECTURE.md has no {begin}"))?;
    let (list, _) = rest.split_once(end).ok_or(format!("ARCHITECTURE.md has no {end}"))?;
    let entries: Vec<String> = list.split('`').skip(1).step_by(2).flat_map(expand).collect();
    if entries.is_empty() { Err("the list of pure files is empty".to_owned()) } else { Ok(entries) }
}

fn expand(entry: &str) -> Vec<String> {
    let Some((before, rest)) = entry.split_once('{') else { return vec![entry.to_owned()] };
    let (names, after) = rest.split_once('}').unwrap_or((rest, ""));
    names.split(',').map(|name| format!("{before}{}{after}", name.trim())).collect()
}

/// The files of one entry, without tests: a file, or all in a folder.
fn files(src: &Path, entry: &str) -> Result<Vec<PathBuf>, String> {
    let path = src.join(entry.trim_end_matches('/'));
    let (file, folder) = (path.with_extension("rs"), path);
    let mut files = Vec::new();
    if file.is_file() && !entry.ends_with('/') {
        files.push(file);
    }
    if folder.is_dir() {
        collect(&folder, &mut files);
    }
    if files.is_empty() { Err(format!("src/{entry} is listed as pure, and is not there")) } else { Ok(files) }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("readable").path());
    for path in entries.collect::<BTreeSet<_>>() {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            collect(&path, files);
        } else if name.ends_with(".rs") && !name.ends_with("_test.rs") {
            files.push(path);
        }
    }
}

/// The code with comments, texts and characters blanked out, and without what is compiled for tests only.
/// Lines stay where they are.
fn code(source: &str) -> String {
    let blanked = blank(source);
    let mut code = String::new();
    let mut rest = blanked.as_str();
    while let Some(at) = rest.find("#[cfg(test)]") {
        code.push_str(&rest[..at]);
        let item = &rest[at..];
        let end = match (item.find('{'), item.find(';')) {
            (Some(brace), semicolon) if semicolon.is_none_or(|semicolon| brace < semicolon) => {
                closing(item, brace)
            }
            (_, Some(semicolon)) => semicolon,
            (_, None) => item.len() - 1,
        };
        code.extend(item[..=end].chars().filter(|&c| c == '\n'));
        rest = &item[end + 1..];
    }
    code.push_str(rest);
    code
}

/// Where the brace that is opened at `open` is closed.
fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, c) in code.char_indices().skip_while(|(at, _)| *at < open) {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return at,
            '}' => depth -= 1,
            _ => {}
        }
    }
    code.len() - 1
}

fn blank(source: &str) -> String {
    let mut blanked = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("r#\"") {
            rest.find("\"#").map_or(rest.len(), |end| end + 2)
        } else if c == '"' {
            quoted(rest, '"')
        } else if c == '\'' && is_character(rest) {
            quoted(rest, '\'')
        } else {
            blanked.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        // A line that ends in a text goes on in the next one.
        blanked.push(' ');
        blanked.extend(rest[..skipped].chars().filter(|&c| c == '\n'));
        rest = &rest[skipped..];
    }
    blanked
}

/// `'a'` or `'\n'`, but not the lifetime `'a`.
fn is_character(text: &str) -> bool {
    text.starts_with("'\\") || text.chars().nth(2) == Some('\'')
}

fn quoted(text: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '\\' if !is_escaped => is_escaped = true,
            c if c == quote && !is_escaped => return at + c.len_utf8(),
            _ => is_escaped = false,
        }
    }
    text.len()
}

/// The paths in a line of code: identifiers joined by `::`.
fn paths(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'))
        .map(|path| path.trim_matches(':'))
        .filter(|path| !path.is_empty())
}

/// Whether the segments of `forbidden` stand one after another in `path`.
fn names(path: &str, forbidden: &str) -> bool {
    path.match_indices(forbidden).any(|(at, _)| {
        let (before, after) = (&path[..at], &path[at + forbidden.len()..]);
        (before.is_empty() || before.ends_with("::")) && (after.is_empty() || after.starts_with("::"))
    })
}

/// What keeps a file from being pure: the line, what it names, and why that is not allowed.
fn violations(source: &str) -> Vec<String> {
    let mut violations = Vec::new();
    for (number, line) in code(source).lines().enumerate() {
        for path in paths(line) {
            let reason = FORBIDDEN.iter().find_map(|(reason, all)| {
                all.iter().any(|forbidden| names(path, forbidden)).then_some(*reason)
            });
            let draws = names(path, "fastrand") && !names(path, FASTRAND);
            if let Some(reason) = reason.or(draws.then_some("it draws by itself")) {
                violations.push(format!("{}: `{path}`: {reason}", number + 1));
            }
        }
    }
    violations
}

#[test]
fn the_files_listed_as_pure_are() {
    let architecture = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("readable");
    let mut found = Vec::new();
    let mut checked = BTreeSet::new();
    for entry in listed(&architecture).expect("a list") {
        match files(&root().join("src"), &entry) {
            Ok(files) => checked.extend(files),
            Err(missing) => found.push(missing),
        }
    }
    for file in &checked {
        let source = std::fs::read_to_string(file).expect("readable");
        let name = file.strip_prefix(root()).expect("in the package").display();
        found.extend(violations(&source).into_iter().map(|violation| format!("{name}:{violation}")));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert!(checked.len() > 40, "only {} files are listed", checked.len());
}

#[test]
fn whatever_is_not_pure_is_found() {
    for line in [
        "async fn plan() {}",
        "let lease = store.lease(key).await?;",
        "use tokio::time::Instant;",
        "use std::sync::{Arc, Mutex};",
        "use std::sync::atomic::AtomicU64;",
        "let now = std::time::SystemTime::now();",
        "let now = SystemTime::now();",
        "fn plan(clock: &Clock) {}",
        "use crate::runtime::Clock;",
        "let x = fastrand::u64(..);",
        "let rng = fastrand::Rng::new();",
        "let rng = fastrand::Rng::with_seed(7);",
        "tracing::warn!(%lease);",
        "use aws_sdk_dynamodb::Client;",
        "fn plan(store: &dyn LeaseStore) {}",
        "let home = std::env::var(NAME);",
        "println!();",
        "#[cfg(test)]\nmod tests { async fn a() {} }\nasync fn b() {}",
    ] {
        assert_eq!(violations(line).len(), 1, "{line}: {:?}", violations(line));
    }
}

#[test]
fn comments_texts_tests_and_what_is_handed_in_are_left_alone() {
    for source in [
        "// as tokio does",
        "/// see [`Clock`]",
        "/* async\nawait */",
        "let text = \"tracing\\\" async\";",
        "let text = r#\"Mutex\"#;",
        "let quote = '\"'; let escaped = '\\''; fn a<'a>(clocks: &'a str) {}",
        "fn plan(rng: &mut fastrand::Rng, now: Moment, at: SystemTime) {}",
        "#[cfg(test)]\nmod tests {\n    use tokio::test;\n    mod deeper { async fn a() {} }\n}",
        "#[cfg(test)]\n#[path = \"row_test.rs\"]\nmod tests;",
    ] {
        assert_eq!(violations(source), Vec::<String>::new(), "{source}");
    }
    let shifted = "/* one\ntwo */\n#[cfg(test)]\nmod tests {\n}\nasync fn a() {}";
    assert_eq!(violations(shifted), ["6: `async`: it waits"], "lines are those of the file");
}

#[test]
fn a_listed_file_that_is_missing_is_an_error() {
    let (begin, end) = LIST;
    let list = listed(&format!("`before`\n{begin} `types/`,\n`lease/{{row,\ncodec}}` {end} `after`"));
    assert_eq!(list, Ok(vec!["types/".to_owned(), "lease/row".to_owned(), "lease/codec".to_owned()]));
    assert!(listed("no list").is_err() && listed(&format!("{begin}{end}")).is_err());
    let src = root().join("src");
    assert!(files(&src, "types/").expect("a folder").len() > 5);
    assert!(files(&src, "lease/row").is_ok());
    assert!(files(&src, "lease/rows").is_err());
}
