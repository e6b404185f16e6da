//! MACs by which an owner knows its own beacon, incarnation record and in-directory: a forged one must
//! not make it count on.

use volume::record::Record;
use zeroize::Zeroizing;

/// Key of an owner's MACs, derived from its private key.
#[derive(Clone)]
pub struct OwnerKey(Zeroizing<[u8; 32]>);

impl std::fmt::Debug for OwnerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OwnerKey")
    }
}

impl OwnerKey {
    /// Derives the key.
    #[must_use]
    pub fn new(private_key: &[u8; 32]) -> Self {
        Self(Zeroizing::new(blake3::derive_key("diskwire 2026 owner records", private_key)))
    }

    /// MAC of a record whose own MAC field is zero.
    #[must_use]
    pub fn mac<R: Record>(&self, record: &R) -> [u8; 32] {
        let mut bytes = vec![0; R::SIZE];
        record.emit(&mut bytes);
        *blake3::keyed_hash(&self.0, &bytes).as_bytes()
    }
}
