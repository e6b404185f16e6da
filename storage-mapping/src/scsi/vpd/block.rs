//! Vital product data of disks: block limits (B0h), characteristics (B1h), provisioning (B2h) (SBC-5 6.6).
//!
//! Keeps true: what did not come is 0, which in these pages is "not told". Not here: capacity (`capacity`).

use crate::scsi::number::{put, u16_at, u32_at, u64_at};

/// Bytes behind the head of a page B0h of SBC-3 or later.
pub(super) const LIMITS_BYTES_MIN: usize = 0x3c;
/// Bytes behind the head of a page B1h.
pub(super) const CHARACTERISTICS_BYTES_MIN: usize = 0x3c;
/// Bytes behind the head of a page B2h.
pub(super) const PROVISIONING_BYTES_MIN: usize = 4;

/// Block limits. Lengths are in logical blocks; 0 is "not told".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct BlockLimits {
    /// WSNZ: WRITE SAME of length 0 is refused.
    pub write_same_not_zero: bool,
    /// Blocks of a COMPARE AND WRITE.
    pub compare_and_write_max: u8,
    /// What a transfer is best a multiple of.
    pub transfer_granularity: u16,
    /// The longest transfer.
    pub transfer_max: u32,
    /// Longer transfers are slower.
    pub transfer_optimal: u32,
    /// The longest prefetch.
    pub prefetch_max: u32,
    /// Blocks of an UNMAP.
    pub unmap_max: u32,
    /// Descriptors of an UNMAP.
    pub unmap_descriptors_max: u32,
    /// What an UNMAP is best a multiple of.
    pub unmap_granularity: u32,
    /// Where the first granule begins, where that is valid; 31 bits.
    pub unmap_alignment: Option<u32>,
    /// Blocks of a WRITE SAME.
    pub write_same_max: u64,
    /// Blocks of an atomic write: most, alignment, granularity, most with a boundary, boundary.
    pub atomic: [u32; 5],
}

impl BlockLimits {
    pub(super) fn parse(body: &[u8]) -> Self {
        let word = |at: usize| u32_at(body, at).unwrap_or_default();
        let byte = |at: usize| body.get(at).copied().unwrap_or_default();
        Self {
            write_same_not_zero: byte(0) & 1 != 0,
            compare_and_write_max: byte(1),
            transfer_granularity: u16_at(body, 2).unwrap_or_default(),
            transfer_max: word(4),
            transfer_optimal: word(8),
            prefetch_max: word(12),
            unmap_max: word(16),
            unmap_descriptors_max: word(20),
            unmap_granularity: word(24),
            unmap_alignment: Some(word(28)).filter(|word| word >> 31 != 0).map(|word| word & 0x7fff_ffff),
            write_same_max: u64_at(body, 32).unwrap_or_default(),
            atomic: [40, 44, 48, 52, 56].map(word),
        }
    }

    pub(super) fn emit(&self) -> Vec<u8> {
        let mut body = vec![0; LIMITS_BYTES_MIN];
        body[0] = u8::from(self.write_same_not_zero);
        body[1] = self.compare_and_write_max;
        put(&mut body, 2, 2, self.transfer_granularity);
        let words = [
            self.transfer_max,
            self.transfer_optimal,
            self.prefetch_max,
            self.unmap_max,
            self.unmap_descriptors_max,
            self.unmap_granularity,
            self.unmap_alignment.map_or(0, |alignment| alignment | 1 << 31),
        ];
        for (place, word) in words.into_iter().enumerate() {
            put(&mut body, 4 + 4 * place, 4, word);
        }
        put(&mut body, 32, 8, self.write_same_max);
        for (place, word) in self.atomic.into_iter().enumerate() {
            put(&mut body, 40 + 4 * place, 4, word);
        }
        body
    }
}

/// Block device characteristics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct BlockCharacteristics {
    /// Rotations in a minute; 0 not told, 1 no rotating medium.
    pub rotation_rate: u16,
    /// Product type.
    pub product_type: u8,
    /// Nominal form factor, 4 bits.
    pub form_factor: u8,
    /// ZONED, 2 bits.
    pub zoned: u8,
    /// FUAB: SYNCHRONIZE CACHE and FUA make data non-volatile.
    pub fua_is_non_volatile: bool,
    /// VBULS: VERIFY of unmapped blocks with BYTCHK.
    pub verify_unmapped: bool,
}

impl BlockCharacteristics {
    pub(super) fn parse(body: &[u8]) -> Self {
        let byte = |at: usize| body.get(at).copied().unwrap_or_default();
        Self {
            rotation_rate: u16_at(body, 0).unwrap_or_default(),
            product_type: byte(2),
            form_factor: byte(3) & 0xf,
            zoned: byte(4) >> 4 & 3,
            fua_is_non_volatile: byte(4) & 2 != 0,
            verify_unmapped: byte(4) & 1 != 0,
        }
    }

    pub(super) fn emit(self) -> Vec<u8> {
        let mut body = vec![0; CHARACTERISTICS_BYTES_MIN];
        put(&mut body, 0, 2, self.rotation_rate);
        body[2] = self.product_type;
        body[3] = self.form_factor & 0xf;
        body[4] =
            (self.zoned & 3) << 4 | u8::from(self.fua_is_non_volatile) << 1 | u8::from(self.verify_unmapped);
        body
    }
}

/// Logical block provisioning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "the standard has one bit for each")]
pub struct Provisioning {
    /// Thresholds count in 2 to the power of this many blocks; 0: no thresholds.
    pub threshold_exponent: u8,
    /// LBPU: UNMAP.
    pub unmap: bool,
    /// LBPWS: WRITE SAME(16) unmaps.
    pub write_same_16: bool,
    /// LBPWS10: WRITE SAME(10) unmaps.
    pub write_same_10: bool,
    /// LBPRZ, 3 bits: what a read of unmapped blocks gives; 1: zeros.
    pub reads_zeros: u8,
    /// ANC_SUP: anchored blocks.
    pub anchored: bool,
    /// DP: a provisioning group descriptor follows; it is not decoded here.
    pub has_group: bool,
    /// Provisioning type, 3 bits: 1 resource, 2 thin.
    pub kind: u8,
}

impl Provisioning {
    pub(super) fn parse(body: &[u8]) -> Self {
        let byte = |at: usize| body.get(at).copied().unwrap_or_default();
        let flags = byte(1);
        Self {
            threshold_exponent: byte(0),
            unmap: flags & 0x80 != 0,
            write_same_16: flags & 0x40 != 0,
            write_same_10: flags & 0x20 != 0,
            reads_zeros: flags >> 2 & 7,
            anchored: flags & 2 != 0,
            has_group: flags & 1 != 0,
            kind: byte(2) & 7,
        }
    }

    /// Without a group descriptor.
    pub(super) fn emit(self) -> Vec<u8> {
        let bit = |set: bool, place: u8| u8::from(set) << place;
        let flags = bit(self.unmap, 7)
            | bit(self.write_same_16, 6)
            | bit(self.write_same_10, 5)
            | (self.reads_zeros & 7) << 2
            | bit(self.anchored, 1)
            | bit(self.has_group, 0);
        vec![self.threshold_exponent, flags, self.kind & 7, 0]
    }
}
