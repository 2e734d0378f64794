use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::{Deref, Range};
use std::sync::Arc;

use bytes::Bytes;

/// The bytes of a record: part of the buffer it was fetched into, which is freed when the last
/// payload in it is dropped.
///
/// Reads as `[u8]`, and turns into [`Bytes`] and back without a copy.
///
/// ```
/// use bytes::Bytes;
/// use kinesis_consumer::Payload;
///
/// let payload = Payload::from("five!");
/// assert_eq!(payload.len(), 5);
/// assert_eq!(payload, "five!");
/// assert_eq!(std::str::from_utf8(&payload)?, "five!");
/// let bytes: Bytes = payload.into();
/// assert_eq!(bytes, "five!");
/// # Ok::<(), std::str::Utf8Error>(())
/// ```
//
// A type of its own because an aggregate is cut into one payload per user record: to clone and drop
// `Bytes`, through pointers to functions, takes nearly twice the time it takes to count one more
// owner and one fewer, and that is a sixth of what small user records cost in all.
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

impl Borrow<[u8]> for Payload {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self { start: 0, end: bytes.len(), buffer: Arc::new(bytes) }
    }
}

/// Conversions without a copy.
macro_rules! from {
    ($($owned:ty),*) => {
        $(
            impl From<$owned> for Payload {
                fn from(bytes: $owned) -> Self {
                    Bytes::from(bytes).into()
                }
            }
        )*
    };
}

from!(Vec<u8>, String, &'static [u8], &'static str);

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

/// With anything that is bytes.
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
    fn bytes_become_a_payload_and_bytes_again_without_a_copy() {
        let bytes = Bytes::from(b"..payload..".to_vec());
        let payload = Payload::from(bytes.clone()).slice(2..9);
        assert_eq!(payload, "payload");
        assert_eq!(payload.as_ptr(), bytes[2..].as_ptr());
        assert_eq!(payload.to_bytes().as_ptr(), payload.as_ptr());
        assert_eq!(Bytes::from(payload.clone()), "payload");
        assert_eq!(payload.slice(3..7).to_bytes(), "load");
    }

    #[test]
    fn what_reaches_beyond_a_payload_is_empty() {
        let payload = Payload::from("..payload..").slice(2..9);
        #[expect(clippy::reversed_empty_ranges, reason = "that is what is tested")]
        let outside = [0..8, 8..9, 7..usize::MAX, 5..4];
        for range in outside {
            assert!(payload.slice(range).is_empty());
        }
        assert!(payload.slice(7..7).is_empty());
        assert!(payload.slice(0..0).to_bytes().is_empty());
    }

    #[test]
    fn the_buffer_is_freed_with_the_last_payload() {
        let buffer = Arc::new([1_u8; 8]);
        #[derive(Debug)]
        struct Buffer(Arc<[u8; 8]>);
        impl AsRef<[u8]> for Buffer {
            fn as_ref(&self) -> &[u8] {
                &*self.0
            }
        }
        let whole = Payload::from(Bytes::from_owner(Buffer(Arc::clone(&buffer))));
        let parts = [whole.slice(0..4), whole.slice(4..8)];
        drop(whole);
        assert_eq!(Arc::strong_count(&buffer), 2);
        drop(parts);
        assert_eq!(Arc::strong_count(&buffer), 1);
    }

    #[test]
    fn payloads_are_equal_and_found_by_their_bytes() {
        let (whole, part) = (Payload::from("part"), Payload::from("a part").slice(2..6));
        assert_eq!(whole, part);
        assert_ne!(whole, "parts");
        let set = std::collections::HashSet::from([part]);
        assert!(set.contains(&whole) && set.contains(&b"part"[..]));
    }

    #[test]
    fn debug_shows_no_data() {
        assert_eq!(format!("{:?}", Payload::from("secret")), "Payload { bytes: 6, .. }");
    }
}
