//! Names: the BLAKE3 hash that names chunks and object files, and random identities.

use std::fmt;

use crate::error::{Error, Result};

/// A BLAKE3 hash of 32 bytes: the name of a chunk or of an object file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// The hash of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Hash(*blake3::hash(bytes).as_bytes())
    }

    /// From exactly 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Hash)
    }

    /// From 64 lower-case hexadecimal digits; nothing else is a hash.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut hash = [0; 32];
        decode_hex(text, &mut hash).then_some(Hash(hash))
    }

    /// The first eight hexadecimal digits, for messages.
    pub fn short(&self) -> String {
        self.to_string().chars().take(8).collect()
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

/// 16 random bytes that identify a repository, a database, a generation or a snapshot for ever.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid(pub [u8; 16]);

impl Uid {
    /// A new one from the operating system's random numbers.
    pub fn random() -> Result<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)
            .map_err(|error| Error::failed(format!("cannot get random numbers from the operating system: {error}")))?;
        Ok(Uid(bytes))
    }

    /// From exactly 16 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Uid)
    }

    /// From 32 lower-case hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut uid = [0; 16];
        decode_hex(text, &mut uid).then_some(Uid(uid))
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

/// Serde for the types above as lower-case hexadecimal text.
macro_rules! hex_serde {
    ($type:ty) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                <$type>::from_hex(&text).ok_or_else(|| {
                    serde::de::Error::custom(concat!("not the hexadecimal form of a ", stringify!($type)))
                })
            }
        }
    };
}

hex_serde!(Hash);
hex_serde!(Uid);

/// The hash of a chunk list, extended chunk by chunk, so that a longer list costs only what is new.
///
/// `next = BLAKE3(previous || length as u32 little-endian || chunk hash)`, starting from 32 zero bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct ListHash(pub Hash);

impl ListHash {
    /// The hash of the list with one more chunk at its end.
    #[must_use]
    pub fn extended(self, length: u32, chunk: &Hash) -> Self {
        let mut bytes = [0; 68];
        bytes[..32].copy_from_slice(&self.0.0);
        bytes[32..36].copy_from_slice(&length.to_le_bytes());
        bytes[36..].copy_from_slice(&chunk.0);
        ListHash(Hash::of(&bytes))
    }
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

fn decode_hex(text: &str, into: &mut [u8]) -> bool {
    let digits = text.as_bytes();
    if digits.len() != into.len() * 2 {
        return false;
    }
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    digits.chunks_exact(2).zip(into).all(|(pair, byte)| match (value(pair[0]), value(pair[1])) {
        (Some(high), Some(low)) => {
            *byte = high << 4 | low;
            true
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_is_lower_case_and_exact() {
        let hash = Hash::of(b"znap");
        let text = hash.to_string();
        assert_eq!(Hash::from_hex(&text), Some(hash));
        assert_eq!(Hash::from_hex(&text.to_uppercase()), None);
        assert_eq!(Hash::from_hex(&text[1..]), None);
        assert_eq!(Hash::from_hex("../../etc/passwd"), None);
    }

    #[test]
    fn the_list_hash_depends_on_order_and_lengths() {
        let (a, b) = (Hash::of(b"a"), Hash::of(b"b"));
        let start = ListHash::default();
        let ab = start.extended(1, &a).extended(1, &b);
        assert_ne!(ab, start.extended(1, &b).extended(1, &a));
        assert_ne!(ab, start.extended(2, &a).extended(1, &b));
    }
}
