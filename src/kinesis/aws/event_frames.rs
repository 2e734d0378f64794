//! Frames of an event stream (`application/vnd.amazon.eventstream`).
//!
//! A frame is a prelude (its length, the length of its headers, their checksum), headers, a payload, and a
//! checksum of all before it. Numbers are big-endian; checksums are CRC-32.

use bytes::{Buf, Bytes, BytesMut};

/// The largest frame accepted. An event has at most 10 MB of records; the format allows 16 MiB of payload.
const FRAME_BYTES_MAX: usize = 24 << 20;

const PRELUDE_LEN: usize = 12;
const CHECKSUM_LEN: usize = 4;

/// Why an event stream cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    #[error("an event with a wrong checksum")]
    Checksum,
    #[error("an event of impossible length")]
    Length,
    #[error("an event with unreadable headers")]
    Headers,
}

/// What a frame is, by its headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FrameKind {
    /// An event of this type.
    Event(String),
    /// A failure with this code that the API documents.
    Exception(String),
    /// A failure with this code and message that it does not.
    Error(String, String),
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: FrameKind,
    pub(super) content_type: String,
    pub(super) payload: Bytes,
}

/// Finds the frames in pieces of a response body. A frame that lies within a piece is not copied, and another
/// one is copied once.
#[derive(Debug, Default)]
pub(super) struct FrameReader {
    /// The beginning of a frame.
    partial: BytesMut,
    /// What follows it.
    rest: Bytes,
}

impl FrameReader {
    /// Adds a piece of the body. All frames before it must have been [taken](Self::next).
    pub(super) fn push(&mut self, piece: Bytes) {
        debug_assert!(self.rest.is_empty(), "frames are left");
        self.rest = piece;
    }

    /// The next frame; `None` if it has not arrived completely.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        if self.partial.is_empty()
            && let Some(len) = frame_len(&self.rest)?
            && len <= self.rest.len()
        {
            return frame(self.rest.split_to(len)).map(Some);
        }
        loop {
            let len = frame_len(&self.partial)?;
            if let Some(len) = len.filter(|len| *len <= self.partial.len()) {
                return frame(self.partial.split_to(len).freeze()).map(Some);
            }
            if self.rest.is_empty() {
                return Ok(None);
            }
            let missing = len.unwrap_or(PRELUDE_LEN) - self.partial.len();
            self.partial.reserve(missing);
            self.partial.extend_from_slice(&self.rest.split_to(missing.min(self.rest.len())));
        }
    }

    /// Whether everything that was added has been taken.
    pub(super) fn is_empty(&self) -> bool {
        self.partial.is_empty() && self.rest.is_empty()
    }
}

/// The length of the frame that begins with `bytes`; `None` if its prelude is incomplete.
fn frame_len(bytes: &[u8]) -> Result<Option<usize>, FrameError> {
    let Some((prelude, _)) = bytes.split_first_chunk::<PRELUDE_LEN>() else { return Ok(None) };
    let [len, headers_len, checksum] = numbers(prelude);
    if crc32fast::hash(&prelude[..PRELUDE_LEN - CHECKSUM_LEN]) != checksum {
        return Err(FrameError::Checksum);
    }
    let (len, headers_len) = (len as usize, headers_len as usize);
    let is_possible = len <= FRAME_BYTES_MAX && headers_len <= len.saturating_sub(PRELUDE_LEN + CHECKSUM_LEN);
    if is_possible && len >= PRELUDE_LEN + CHECKSUM_LEN { Ok(Some(len)) } else { Err(FrameError::Length) }
}

fn numbers(prelude: &[u8; PRELUDE_LEN]) -> [u32; 3] {
    let mut prelude = &prelude[..];
    [prelude.get_u32(), prelude.get_u32(), prelude.get_u32()]
}

/// The frame that `bytes` are, whose prelude was checked.
fn frame(mut bytes: Bytes) -> Result<Frame, FrameError> {
    let checksum = bytes.split_off(bytes.len() - CHECKSUM_LEN).get_u32();
    if crc32fast::hash(&bytes) != checksum {
        return Err(FrameError::Checksum);
    }
    let headers_len = (&bytes[4..8]).get_u32() as usize;
    bytes.advance(PRELUDE_LEN);
    let headers = bytes.split_to(headers_len);
    let headers = Headers::parse(&headers).ok_or(FrameError::Headers)?;
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    let kind = match headers.message_type {
        Some("event") => FrameKind::Event(text(headers.event_type)),
        Some("exception") => FrameKind::Exception(text(headers.exception_type)),
        Some("error") => FrameKind::Error(text(headers.error_code), text(headers.error_message)),
        _ => return Err(FrameError::Headers),
    };
    Ok(Frame { kind, content_type: text(headers.content_type), payload: bytes })
}

/// The headers that matter, in whatever order they come.
#[derive(Debug, Default)]
struct Headers<'a> {
    message_type: Option<&'a str>,
    event_type: Option<&'a str>,
    exception_type: Option<&'a str>,
    error_code: Option<&'a str>,
    error_message: Option<&'a str>,
    content_type: Option<&'a str>,
}

impl<'a> Headers<'a> {
    fn parse(mut bytes: &'a [u8]) -> Option<Self> {
        let mut headers = Self::default();
        while !bytes.is_empty() {
            let name_len = take(&mut bytes, 1)?[0];
            let name = take(&mut bytes, name_len.into())?;
            let value = value(&mut bytes)?;
            let known = match name {
                b":message-type" => &mut headers.message_type,
                b":event-type" => &mut headers.event_type,
                b":exception-type" => &mut headers.exception_type,
                b":error-code" => &mut headers.error_code,
                b":error-message" => &mut headers.error_message,
                b":content-type" => &mut headers.content_type,
                _ => continue,
            };
            *known = Some(value?);
        }
        Some(headers)
    }
}

/// The value of a header, if it is text; skips it anyway. `None` if its type is unknown, or it is cut.
fn value<'a>(bytes: &mut &'a [u8]) -> Option<Option<&'a str>> {
    let len = match take(bytes, 1)?[0] {
        // True and false.
        0 | 1 => 0,
        // Integers of 1, 2, 4 and 8 bytes.
        2 => 1,
        3 => 2,
        4 => 4,
        // Or a timestamp.
        5 | 8 => 8,
        // Bytes.
        6 => take(bytes, 2)?.get_u16().into(),
        // Text.
        7 => {
            let len = take(bytes, 2)?.get_u16();
            return Some(std::str::from_utf8(take(bytes, len.into())?).ok());
        }
        // A UUID.
        9 => 16,
        _ => return None,
    };
    take(bytes, len).map(|_| None)
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(taken)
}

#[cfg(test)]
#[path = "event_frames_test.rs"]
mod tests;
