use super::Malformation;

/// The maximum nesting depth of messages and groups (protobuf's own limit).
const DEPTH_MAX: u32 = 100;

/// A varint has at most ten bytes.
const VARINT_BYTES_MAX: usize = 10;

/// A field's number and wire type, as encoded: `number << 3 | wire type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag(u32);

impl Tag {
    /// The tag of a length-delimited field.
    pub(super) const fn delimited(number: u32) -> Self {
        Self(number << 3 | 2)
    }

    /// The tag of a varint field.
    pub(super) const fn varint(number: u32) -> Self {
        Self(number << 3)
    }

    /// The usual encoding of the tag of a field with a number below 16.
    #[expect(clippy::cast_possible_truncation, reason = "one byte for numbers below 16")]
    pub(super) const fn short(self) -> [u8; 1] {
        [self.0 as u8]
    }
}

/// The position of a length-delimited field's content in the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) len: u32,
}

/// Reads protobuf's wire format as the Java implementation does. Where the format leaves room, for
/// example for tags and lengths of more than 32 bits, Java's behaviour counts, because the results must
/// agree with KCL in Java.
///
/// Holds everything up to the end of the (sub-)message being read, so positions are always positions in
/// the whole record.
#[derive(Debug, Clone)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The number of messages and groups around this one.
    depth: u32,
}

type Result<T> = std::result::Result<T, Malformation>;

impl<'a> Reader<'a> {
    /// A reader of the message that is `bytes` from `start` on; `bytes` are less than 2^32.
    pub(super) fn new(bytes: &'a [u8], start: usize) -> Self {
        Self { bytes, at: start.min(bytes.len()), depth: 0 }
    }

    /// The unread rest of the message.
    #[inline]
    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// Continues where the last `rest` bytes of the message begin.
    #[inline]
    pub(super) fn skip_to(&mut self, rest: &[u8]) {
        self.at = self.bytes.len().saturating_sub(rest.len());
    }

    /// The current position.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "records are shorter than 2^32")]
    pub(super) fn at(&self) -> u32 {
        self.at as u32
    }

    /// Where the message ends.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "records are shorter than 2^32")]
    pub(super) fn end(&self) -> u32 {
        self.bytes.len() as u32
    }

    /// The tag of the next field; `None` at the end of the message.
    #[inline]
    pub(super) fn tag(&mut self) -> Result<Option<Tag>> {
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        match self.varint()? {
            0..8 => Err(Malformation::Protobuf),
            tag => Ok(Some(Tag(tag))),
        }
    }

    /// The low 32 bits of a varint: no field of the KPL's messages needs more, and Java ignores the
    /// other bits.
    #[inline]
    pub(super) fn varint(&mut self) -> Result<u32> {
        match self.bytes.get(self.at) {
            Some(&byte) if byte < 0x80 => {
                self.at += 1;
                Ok(u32::from(byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u32> {
        let rest = &self.bytes[self.at..];
        let mut value = 0_u32;
        for (index, &byte) in rest.iter().take(VARINT_BYTES_MAX).enumerate() {
            if index < 5 {
                value |= u32::from(byte & 0x7F) << (7 * index);
            }
            if byte < 0x80 {
                self.at += index + 1;
                return Ok(value);
            }
        }
        Err(Malformation::Protobuf)
    }

    /// The content of a length-delimited field, whose tag has been read.
    #[inline]
    pub(super) fn delimited(&mut self) -> Result<Span> {
        let len = self.varint()?;
        let start = self.at;
        self.skip_bytes(len as usize)?;
        #[expect(clippy::cast_possible_truncation, reason = "records are shorter than 2^32")]
        Ok(Span { start: start as u32, len })
    }

    /// A reader of the message inside a length-delimited field, whose tag has been read.
    #[inline]
    pub(super) fn message(&mut self) -> Result<Self> {
        let depth = self.deeper()?;
        let span = self.delimited()?;
        Ok(Self { bytes: &self.bytes[..self.at], at: span.start as usize, depth })
    }

    /// Skips an unknown field, whose tag has been read.
    #[cold]
    pub(super) fn skip(&mut self, tag: Tag) -> Result<()> {
        let mut open_groups = Vec::new();
        let mut tag = tag;
        loop {
            match tag.0 & 7 {
                0 => _ = self.varint()?,
                1 => self.skip_bytes(8)?,
                2 => _ = self.delimited()?,
                3 => {
                    self.depth = self.deeper()?;
                    open_groups.push(tag.0);
                }
                4 => match open_groups.pop() {
                    Some(start) if start + 1 == tag.0 => self.depth -= 1,
                    _ => return Err(Malformation::Protobuf),
                },
                5 => self.skip_bytes(4)?,
                _ => return Err(Malformation::Protobuf),
            }
            if open_groups.is_empty() {
                return Ok(());
            }
            tag = self.tag()?.ok_or(Malformation::Protobuf)?;
        }
    }

    #[inline]
    fn skip_bytes(&mut self, count: usize) -> Result<()> {
        if count > self.bytes.len() - self.at {
            return Err(Malformation::Protobuf);
        }
        self.at += count;
        Ok(())
    }

    #[inline]
    fn deeper(&self) -> Result<u32> {
        if self.depth < DEPTH_MAX { Ok(self.depth + 1) } else { Err(Malformation::Protobuf) }
    }
}

impl Span {
    #[inline]
    pub(super) fn range(self) -> std::ops::Range<usize> {
        let start = self.start as usize;
        start..start + self.len as usize
    }
}
