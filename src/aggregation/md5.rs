use md5::{Digest, Md5};

/// The MD5 digests of `messages`, in their order.
pub(super) fn digests(messages: &[&[u8]]) -> Vec<[u8; 16]> {
    messages.iter().map(|message| Md5::digest(message).into()).collect()
}
