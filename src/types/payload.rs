use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::{Bound, Deref, Range, RangeBounds};
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};

/// The bytes of a record: part of the buffer it was fetched into, which is freed when the last
/// payload in it is dropped.
///
/// Reads as `[u8]`, turns into [`Bytes`] and back without a copy, and can be used like it: it is sliced,
/// ordered, hashed, and compared from either side with what is bytes, and it is a [`Buf`].
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
    /// No bytes.
    #[must_use]
    pub fn new() -> Self {
        Self::from(Bytes::new())
    }

    /// These bytes, without a copy.
    #[must_use]
    pub fn from_static(bytes: &'static [u8]) -> Self {
        Self::from(Bytes::from_static(bytes))
    }

    /// A copy of `bytes`, as [`From<&[u8]>`](#impl-From%3C%26%5Bu8%5D%3E-for-Payload) makes it.
    #[must_use]
    pub fn copy_from_slice(bytes: &[u8]) -> Self {
        Self::from(bytes)
    }

    /// The same bytes as [`Bytes`], which share the buffer.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        self.buffer.slice_ref(self)
    }

    /// The part of these bytes at `range`, counted from their first; it shares the buffer.
    ///
    /// ```
    /// use kinesis_consumer::Payload;
    ///
    /// let payload = Payload::from("id=7;total=12");
    /// assert_eq!(payload.slice(3..4), "7");
    /// assert_eq!(payload.slice(5..), "total=12");
    /// ```
    ///
    /// # Panics
    ///
    /// If `range` ends before it starts or reaches beyond these bytes, as [`Bytes::slice`] does. Where
    /// that may be, look with [`slice::get`] first.
    #[must_use]
    #[track_caller]
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Self {
        let length = self.len();
        let start = match range.start_bound() {
            Bound::Included(&start) => Some(start),
            Bound::Excluded(&before) => before.checked_add(1),
            Bound::Unbounded => Some(0),
        };
        let end = match range.end_bound() {
            Bound::Included(&last) => last.checked_add(1),
            Bound::Excluded(&end) => Some(end),
            Bound::Unbounded => Some(length),
        };
        // A bound beyond usize::MAX is beyond the bytes.
        let (start, end) = (start.unwrap_or(usize::MAX), end.unwrap_or(usize::MAX));
        assert!(start <= end && end <= length, "slice {start}..{end} of a payload of {length} bytes");
        self.part(start..end)
    }

    /// The part of these bytes at `range`, which shares the buffer; empty if `range` reaches beyond
    /// them. For ranges out of records, which may say anything.
    #[inline]
    pub(crate) fn part(&self, range: Range<usize>) -> Self {
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

impl Default for Payload {
    fn default() -> Self {
        Self::new()
    }
}

/// Reading moves the start; the buffer stays.
impl Buf for Payload {
    fn remaining(&self) -> usize {
        self.end - self.start
    }

    fn chunk(&self) -> &[u8] {
        self
    }

    fn advance(&mut self, count: usize) {
        let remaining = self.remaining();
        assert!(count <= remaining, "advance by {count} in a payload of {remaining} bytes");
        self.start += count;
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        let bytes = self.slice(..length).to_bytes();
        self.advance(length);
        bytes
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self { start: 0, end: bytes.len(), buffer: Arc::new(bytes) }
    }
}

/// Conversions without a copy.
macro_rules! from_owned {
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

from_owned!(Vec<u8>, String, Box<[u8]>, BytesMut);

/// Copies the bytes; [`from_static`](Payload::from_static) does not.
impl From<&[u8]> for Payload {
    fn from(bytes: &[u8]) -> Self {
        Bytes::copy_from_slice(bytes).into()
    }
}

/// Copies the bytes; [`from_static`](Payload::from_static) does not.
impl<const N: usize> From<&[u8; N]> for Payload {
    fn from(bytes: &[u8; N]) -> Self {
        bytes.as_slice().into()
    }
}

/// Copies the text.
impl From<&str> for Payload {
    fn from(text: &str) -> Self {
        text.as_bytes().into()
    }
}

impl FromIterator<u8> for Payload {
    fn from_iter<I: IntoIterator<Item = u8>>(bytes: I) -> Self {
        Bytes::from_iter(bytes).into()
    }
}

/// Shares the buffer.
impl From<Payload> for Bytes {
    fn from(payload: Payload) -> Self {
        payload.to_bytes()
    }
}

/// Copies the bytes, unless they are all that is left of a buffer that can be turned into a [`Vec`].
impl From<Payload> for Vec<u8> {
    fn from(payload: Payload) -> Self {
        let Payload { buffer, start, end } = payload;
        match Arc::try_unwrap(buffer) {
            Ok(mut bytes) => {
                bytes.truncate(end);
                bytes.advance(start);
                bytes.into()
            }
            Err(shared) => shared.get(start..end).unwrap_or_default().to_vec(),
        }
    }
}

impl<'a> IntoIterator for &'a Payload {
    type Item = &'a u8;
    type IntoIter = std::slice::Iter<'a, u8>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for Payload {
    type Item = u8;
    type IntoIter = bytes::buf::IntoIter<Self>;

    fn into_iter(self) -> Self::IntoIter {
        bytes::buf::IntoIter::new(self)
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Payload {}

impl PartialOrd for Payload {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Byte by byte, as slices are ordered.
impl Ord for Payload {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}

impl Hash for Payload {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

/// Comparisons from both sides, for one type each: an implementation for all that is bytes would leave
/// the compiler without a type for literals such as `vec![1, 2]`.
macro_rules! compare {
    ($([$($generic:tt)*] $other:ty),* $(,)?) => {
        $(
            impl<$($generic)*> PartialEq<$other> for Payload {
                fn eq(&self, other: &$other) -> bool {
                    **self == *AsRef::<[u8]>::as_ref(other)
                }
            }

            impl<$($generic)*> PartialOrd<$other> for Payload {
                fn partial_cmp(&self, other: &$other) -> Option<Ordering> {
                    Some((**self).cmp(AsRef::<[u8]>::as_ref(other)))
                }
            }

            impl<$($generic)*> PartialEq<Payload> for $other {
                fn eq(&self, other: &Payload) -> bool {
                    other == self
                }
            }

            impl<$($generic)*> PartialOrd<Payload> for $other {
                fn partial_cmp(&self, other: &Payload) -> Option<Ordering> {
                    Some(AsRef::<[u8]>::as_ref(self).cmp(other))
                }
            }
        )*
    };
}

compare!(
    [] [u8],
    [] str,
    [] Vec<u8>,
    [] String,
    [] Bytes,
    [] BytesMut,
    [const N: usize] [u8; N],
    ['a] &'a [u8],
    ['a] &'a str,
    ['a, const N: usize] &'a [u8; N],
);

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
            assert!(payload.part(range.clone()).is_empty());
            let slice = || payload.slice(range.clone());
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(slice)).is_err(), "{range:?}");
        }
        assert!(payload.part(7..7).is_empty() && payload.slice(7..).is_empty());
        assert!(payload.slice(0..0).to_bytes().is_empty());
    }

    #[test]
    fn every_kind_of_range_is_cut_as_a_slice_is() {
        let payload = Payload::from("..payload..").slice(2..9);
        let cut = [payload.slice(..), payload.slice(3..), payload.slice(..3), payload.slice(..=2)];
        assert_eq!(cut, ["payload", "load", "pay", "pay"].map(Payload::from));
        assert_eq!(payload.slice((Bound::Excluded(2), Bound::Included(6))), "load");
        assert_eq!(payload.slice(3..).slice(1..3), "oa");
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

    /// With every type from both sides, equal, less and greater, and with literals of open type.
    #[test]
    fn payloads_are_compared_from_either_side() {
        let payload = Payload::from("..abc").slice(2..);
        let (less, greater) = (Payload::from("abb"), Payload::from("abca"));
        macro_rules! compared {
            ($($other:expr),* $(,)?) => {
                $(
                    assert!(payload == $other);
                    assert!($other == payload);
                    assert!(payload <= $other);
                    assert!($other >= payload);
                    assert!(less < $other);
                    assert!($other > less);
                    assert!(greater != $other);
                    assert!($other != greater);
                )*
            };
        }
        compared!(
            "abc",
            *"abc",
            b"abc",
            *b"abc",
            [97, 98, 99],
            vec![97, 98, 99],
            b"abc".as_slice(),
            *b"abc".as_slice(),
            "abc".to_owned(),
            Bytes::from_static(b"abc"),
            BytesMut::from("abc"),
            Payload::from_static(b"abc"),
        );
        let sorted: std::collections::BTreeMap<_, _> = [(greater, 3), (payload, 2), (less, 1)].into();
        assert_eq!(sorted.into_values().collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn payloads_are_made_of_bytes_and_become_them() {
        let local = "abc".to_owned();
        for made in [
            Payload::from(local.as_str()),
            Payload::from(local.as_bytes()),
            Payload::copy_from_slice(local.as_bytes()),
            Payload::from(b"abc"),
            Payload::from(local.clone().into_bytes().into_boxed_slice()),
            Payload::from(BytesMut::from("abc")),
            local.bytes().collect(),
        ] {
            assert_eq!(made, local);
            assert_eq!((&made).into_iter().copied().collect::<Vec<_>>(), b"abc");
            assert_eq!(made.clone().into_iter().collect::<Vec<u8>>(), b"abc");
            assert_eq!(Vec::from(made), b"abc");
        }
        assert!(Payload::default().is_empty() && Payload::new().is_empty());
    }

    #[test]
    fn the_last_payload_of_a_buffer_becomes_a_vec_without_a_copy() {
        let payload = Payload::from(b"payload..".to_vec()).slice(..7);
        let (kept, address) = (payload.clone(), payload.as_ptr());
        let copied = Vec::from(payload);
        assert_ne!(copied.as_ptr(), address);
        let moved = Vec::from(kept);
        assert_eq!((moved.as_ptr(), &*moved), (address, &b"payload"[..]));
        assert_eq!(Vec::from(Payload::from("..payload").slice(2..)), b"payload");
    }

    #[test]
    fn a_payload_is_read_as_a_buffer() {
        let whole = Payload::from(b"..\x01\x00\x02tail".to_vec()).slice(2..);
        let mut payload = whole.clone();
        assert_eq!((payload.get_u8(), payload.get_u16(), payload.remaining()), (1, 2, 4));
        let address = payload.as_ptr();
        let tail = payload.copy_to_bytes(3);
        assert_eq!((tail.as_ptr(), &tail[..]), (address, &b"tai"[..]));
        assert_eq!((payload.chunk(), whole.len()), (&b"l"[..], 7));
        assert!(payload.try_get_u16().is_err());
        let beyond = std::panic::AssertUnwindSafe(|| payload.advance(2));
        assert!(std::panic::catch_unwind(beyond).is_err());
    }

    #[test]
    fn debug_shows_no_data() {
        assert_eq!(format!("{:?}", Payload::from("secret")), "Payload { bytes: 6, .. }");
    }
}
