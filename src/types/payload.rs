use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::{Deref, Range};
use std::sync::Arc;

use bytes::Bytes;

/// The bytes of a record: part of the buffer it was fetched into, which is freed when the last
/// payload in it is dropped.
///
/// Reads as `[u8]`, and turns into [`Bytes`] and back without a copy. It is a type of its own because
/// an aggregate is cut into one payload per user record, and to clone and drop `Bytes`, through
/// pointers to functions, takes nearly twice the time it takes to count one more owner and one fewer.
#[derive(Clone)]
pub struct Payload {
    buffer: Arc<Bytes>,
    start: usize,
    end: usize,
}

impl Payload {
    /// The same bytes as [`Bytes`], which share the buffer.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        self.buffer.slice_ref(self)
    }

    /// The part of these bytes at `range`, which shares the buffer; empty if `range` reaches beyond
    /// them.
    #[inline]
    pub(crate) fn slice(&self, range: Range<usize>) -> Self {
        let inside = range.start <= range.end && range.end <= self.end - self.start;
        let range = if inside { range } else { 0..0 };
        Self {
            buffer: Arc::clone(&self.buffer),
            start: self.start + range.start,
            end: self.start + range.end,
        }
    }
}

impl Deref for Payload {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }
}

impl AsRef<[u8]> for Payload {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self { start: 0, end: bytes.len(), buffer: Arc::new(bytes) }
    }
}

impl From<Payload> for Bytes {
    fn from(payload: Payload) -> Self {
        payload.to_bytes()
    }
}

impl Eq for Payload {}

impl Hash for Payload {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl<B: AsRef<[u8]> + ?Sized> PartialEq<B> for Payload {
    fn eq(&self, other: &B) -> bool {
        **self == *other.as_ref()
    }
}

/// Shows how many bytes there are; never what they are.
impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payload").field("bytes", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_shares_the_buffer_and_so_do_its_bytes() {
        let buffer = Bytes::from(b"0123456789".to_vec());
        let start = buffer.as_ptr();
        let whole = Payload::from(buffer.slice(2..9));
        let part = whole.slice(1..5).slice(1..3);
        assert_eq!(part, b"45");
        assert_eq!(part.as_ptr(), start.wrapping_add(4));
        let bytes = Bytes::from(part.clone());
        assert_eq!((bytes.as_ref(), bytes.as_ptr()), (part.as_ref(), part.as_ptr()));
        drop((whole, part, buffer));
        assert_eq!(bytes, "45");
    }

    #[test]
    fn an_empty_payload_turns_into_empty_bytes() {
        for payload in [Payload::from(Bytes::new()), Payload::from(Bytes::from_static(b"01")).slice(1..1)] {
            assert!(payload.is_empty());
            assert!(payload.to_bytes().is_empty());
        }
    }

    #[test]
    #[expect(clippy::reversed_empty_ranges, reason = "such a range too must do no harm")]
    fn a_part_that_is_not_inside_is_empty() {
        let middle = Payload::from(Bytes::from_static(b"0123456789")).slice(3..6);
        for range in [0..4, 4..5, 2..1, 3..4, usize::MAX..usize::MAX] {
            assert_eq!(middle.slice(range), b"");
        }
        assert_eq!(middle.slice(0..3), b"345");
    }

    #[test]
    fn a_payload_is_shown_by_its_size() {
        let shown = format!("{:?}", Payload::from(Bytes::from_static(b"secret")));
        assert!(shown.contains('6') && !shown.contains("secret"), "{shown}");
    }
}
