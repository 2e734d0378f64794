use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::ops::{Deref, Range};

use super::Payload;
use super::text::used_as_text;

/// Declares a key of a record.
macro_rules! key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Text);

        impl $name {
            /// The text.
            #[must_use]
            #[inline]
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }

            /// The text at `range` of `payload`, which the caller knows to be UTF-8.
            pub(crate) fn slice(payload: &Payload, range: Range<usize>) -> Self {
                let short = Text::short(payload.get(range.clone()).unwrap_or_default());
                Self(short.unwrap_or_else(|| Text::Slice(payload.part(range))))
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                let copy = || Text::Slice(text.to_owned().into());
                Self(Text::short(text.as_bytes()).unwrap_or_else(copy))
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(Text::short(text.as_bytes()).unwrap_or_else(|| Text::Slice(text.into())))
            }
        }

        impl Deref for $name {
            type Target = str;

            #[inline]
            fn deref(&self) -> &str {
                self.as_str()
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                self.0.as_bytes() == other.as_bytes()
            }
        }

        impl PartialEq<String> for $name {
            fn eq(&self, other: &String) -> bool {
                *self == **other
            }
        }

        used_as_text!($name);
    };
}

key! {
    /// The partition key of a record: what its producer grouped it by.
    ///
    /// Cheap to clone. A key of up to 40 bytes, a UUID for instance, is held inside; a longer one is a
    /// slice of the buffer the record was fetched into.
    PartitionKey
}

key! {
    /// The explicit hash key of an aggregated user record, in decimal, as its producer wrote it.
    ///
    /// Cheap to clone. A key of up to 40 bytes is held inside; a longer one is a slice of the buffer
    /// the record was fetched into.
    ExplicitHashKey
}

impl PartitionKey {
    /// The longest text held inside.
    pub(crate) const INLINE_MAX: u8 = Text::INLINE_MAX;

    /// The key of up to [`INLINE_MAX`](Self::INLINE_MAX) bytes at `start` of `buffer`, which the
    /// caller knows to be UTF-8.
    #[inline]
    pub(crate) fn inline(buffer: &[u8], start: usize, len: u8) -> Self {
        Self(Text::inline(buffer, start, len))
    }
}

/// UTF-8: every constructor starts from text.
#[derive(Clone)]
enum Text {
    /// Copying these few bytes costs less than counting one more owner of a buffer.
    Inline {
        len: u8,
        /// Zeros from `len` on.
        bytes: Words,
    },
    Slice(Payload),
}

/// Whole words, so that they are copied as such: a text put together in pieces of one size and moved
/// in pieces of another would have to wait for the processor to sort them out.
#[derive(Clone, Copy)]
#[repr(align(8))]
struct Words([u8; 40]);

impl Text {
    const INLINE_MAX: u8 = 40;
    const INLINE_BYTES: usize = Self::INLINE_MAX as usize;

    fn short(text: &[u8]) -> Option<Self> {
        let len = u8::try_from(text.len()).ok().filter(|&len| len <= Self::INLINE_MAX)?;
        Some(Self::inline(text, 0, len))
    }

    #[inline]
    fn inline(buffer: &[u8], start: usize, len: u8) -> Self {
        const N: usize = Text::INLINE_BYTES;
        const ONES_THEN_ZEROS: [u8; 2 * N] = {
            let mut mask = [0; 2 * N];
            let (ones, _) = mask.split_at_mut(N);
            ones.copy_from_slice(&[0xFF; N]);
            mask
        };
        let len = len.min(Self::INLINE_MAX);
        let from = buffer.get(start..).unwrap_or_default();
        let mask = ONES_THEN_ZEROS[N - usize::from(len)..].first_chunk::<N>();
        let (Some(from), Some(mask)) = (from.first_chunk::<N>(), mask) else {
            return Self::inline_at_end(from, len);
        };
        // To copy all and mask, word by word, is faster than to copy `len` bytes.
        let words = from.as_chunks().0.iter().zip(mask.as_chunks().0);
        let mut bytes = [0; N];
        for (bytes, (from, mask)) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
            *bytes = (u64::from_ne_bytes(*from) & u64::from_ne_bytes(*mask)).to_ne_bytes();
        }
        Self::Inline { len, bytes: Words(bytes) }
    }

    #[cold]
    fn inline_at_end(from: &[u8], len: u8) -> Self {
        let mut bytes = [0; Self::INLINE_BYTES];
        bytes.iter_mut().zip(from).take(len.into()).for_each(|(byte, from)| *byte = *from);
        Self::Inline { len, bytes: Words(bytes) }
    }

    #[inline]
    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Inline { len, bytes } => bytes.0.get(..usize::from(*len)).unwrap_or(&bytes.0),
            Self::Slice(bytes) => bytes,
        }
    }

    #[inline]
    fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

impl Default for Text {
    fn default() -> Self {
        Self::Inline { len: 0, bytes: Words([0; Self::INLINE_BYTES]) }
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Text {}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_any_length_is_given_back() {
        assert_eq!(size_of::<PartitionKey>(), 48);
        for len in 0..300 {
            let text = "käse".chars().cycle().take(len).collect::<String>();
            for key in [PartitionKey::from(text.as_str()), text.clone().into()] {
                assert_eq!(key.as_str(), text);
                assert_eq!(key, text);
                assert_eq!(key.clone(), key);
                assert_eq!(PartitionKey::slice(&text.clone().into(), 0..text.len()), key);
                assert_ne!(key, format!("{text}x"));
            }
        }
    }

    #[test]
    fn a_key_inside_a_buffer_shows_nothing_of_what_follows() {
        let mut buffer = b"..key".to_vec();
        for _ in 0..100 {
            let key = PartitionKey::inline(&buffer, 2, 3);
            assert_eq!(key, "key");
            let Text::Inline { bytes, .. } = key.0 else { panic!("short keys are held inside") };
            assert!(bytes.0[3..].iter().all(|&byte| byte == 0));
            buffer.push(b'x');
        }
    }

    #[test]
    fn long_keys_are_slices() {
        let buffer = Payload::from(vec![b'k'; 256]);
        let key = PartitionKey::slice(&buffer, 10..100);
        assert_eq!(key.as_bytes().as_ptr(), buffer[10..].as_ptr());
    }

    #[test]
    fn keys_are_ordered_as_text() {
        let long = "b".repeat(50);
        let keys = ["", "a", "ab", "b", &long, "c"].map(PartitionKey::from);
        assert!(keys.is_sorted_by(|a, b| a < b));
    }
}
