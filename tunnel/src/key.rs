//! The session key: 32 random bytes that laptop and agent share.

use std::fmt;

/// Both ends prove to each other that they hold it (Noise `NNpsk0`) before the first frame.
///
/// Never printed: `Debug` shows no byte of it.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionKey([u8; 32]);

impl SessionKey {
    /// Length in bytes.
    pub const LEN: usize = 32;

    /// The key made of exactly these bytes.
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// Reads the key from a file's or Secret's content; `None` unless it is exactly [`Self::LEN`] bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The bytes, for the Secret and the handshake.
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(..)")
    }
}
