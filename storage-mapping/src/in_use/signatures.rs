//! Signatures of known content, as a table and a few readers.
//!
//! Keeps true: every row is tested; a signature that needs more than one place of magic bytes has a
//! reader of its own. The places are those of libblkid and of the formats' own headers.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

/// Magic bytes at one place.
struct Signature {
    content: &'static str,
    offset: u64,
    magic: &'static [u8],
}

const fn row(content: &'static str, offset: u64, magic: &'static [u8]) -> Signature {
    Signature { content, offset, magic }
}

/// One place each; a format that may lie at several has several rows.
const SIGNATURES: [Signature; 58] = [
    row("a Diskwire master device", 0, b"MAS_EMC"),
    row("a Diskwire secondary device", 0, b"SEC_EMC"),
    row("a GUID partition table", 512, b"EFI PART"),
    row("a GUID partition table", 4096, b"EFI PART"),
    row("an XFS file system", 0, b"XFSB"),
    row("a btrfs file system", 65_536 + 64, b"_BHRfS_M"),
    row("an F2FS file system", 1024, &[0x10, 0x20, 0xf5, 0xf2]),
    row("a swap space", 4096 - 10, b"SWAPSPACE2"),
    row("a swap space", 16_384 - 10, b"SWAPSPACE2"),
    row("a swap space", 65_536 - 10, b"SWAPSPACE2"),
    row("a swap space", 4096 - 10, b"SWAP-SPACE"),
    row("a hibernation image", 4096 - 10, b"S1SUSPEND\0"),
    row("a LUKS1 encrypted volume", 0, b"LUKS\xba\xbe\x00\x01"),
    row("a LUKS2 encrypted volume", 0, b"LUKS\xba\xbe\x00\x02"),
    row("a LUKS2 encrypted volume", 16_384, b"SKUL\xba\xbe\x00\x02"),
    row("an LVM2 physical volume", 24, b"LVM2 001"),
    row("an LVM2 physical volume", 512 + 24, b"LVM2 001"),
    row("an LVM2 physical volume", 1024 + 24, b"LVM2 001"),
    row("an LVM2 physical volume", 1536 + 24, b"LVM2 001"),
    row("a member of an md array (1.1)", 0, &[0xfc, 0x4e, 0x2b, 0xa9]),
    row("a member of an md array (1.2)", 4096, &[0xfc, 0x4e, 0x2b, 0xa9]),
    row("an NTFS file system", 3, b"NTFS    "),
    row("an exFAT file system", 3, b"EXFAT   "),
    row("a BitLocker volume", 3, b"-FVE-FS-"),
    row("a FAT file system", 54, b"FAT12   "),
    row("a FAT file system", 54, b"FAT16   "),
    row("a FAT file system", 82, b"FAT32   "),
    row("an ISO 9660 file system", 32_769, b"CD001"),
    row("a UDF file system", 32_769, b"BEA01"),
    row("a bcache device", 4096 + 24, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"),
    row(
        "a bcachefs file system",
        4096 + 24,
        b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef",
    ),
    row("a Ceph BlueStore device", 0, b"bluestore block device\n"),
    row("a sanlock lockspace", 0, &[0x10, 0x20, 0x15, 0x06]),
    row("sanlock resource leases", 0, &[0x10, 0x20, 0x16, 0x07]),
    row("an OCFS2 file system", 1024, b"OCFSV2"),
    row("an OCFS2 file system", 2048, b"OCFSV2"),
    row("an OCFS2 file system", 4096, b"OCFSV2"),
    row("an OCFS2 file system", 8192, b"OCFSV2"),
    row("a GFS2 file system", 65_536, &[0x01, 0x16, 0x19, 0x70]),
    row("a VMFS volume", 0x10_0000, &[0x0d, 0xd0, 0x01, 0xc0]),
    row("a VMFS file system", 0x20_0000, &[0x5e, 0xf1, 0xab, 0x2f]),
    row("a Stratis pool device", 512 + 4, b"!Stra0tis\x86\xff\x02^\x41rh"),
    row("a VDO volume", 0, b"dmvdo001"),
    row("a dm-verity hash device", 0, b"verity\0\0"),
    row("a dm-integrity device", 0, b"integrt\0"),
    row("a dm snapshot store", 0, b"SnAp"),
    row("a JFS file system", 32_768, b"JFS1"),
    row("a ReiserFS file system", 65_536 + 52, b"ReIsErFs"),
    row("a ReiserFS file system", 65_536 + 52, b"ReIsEr2Fs"),
    row("a ReiserFS file system", 65_536 + 52, b"ReIsEr3Fs"),
    row("a NILFS2 file system", 1024 + 6, &[0x34, 0x34]),
    row("an EROFS file system", 1024, &[0xe2, 0xe1, 0xf5, 0xe0]),
    row("a squashfs file system", 0, b"hsqs"),
    row("an APFS container", 32, b"NXSB"),
    row("an HFS+ file system", 1024, b"H+\0\x04"),
    row("an HFS+ file system", 1024, b"HX\0\x05"),
    row("a QCOW2 disk image", 0, b"QFI\xfb"),
    row("an Oracle ASM disk", 32, b"ORCLDISK"),
];

/// The content that is recognised, each phrase once.
pub(super) fn of(file: &File) -> io::Result<Vec<&'static str>> {
    // A block node has no size in its metadata; its end is where seeking leads.
    let size = (&mut &*file).seek(SeekFrom::End(0))?;
    let mut found = Vec::new();
    for signature in &SIGNATURES {
        let mut place = [0; 32];
        let place = &mut place[..signature.magic.len()];
        if read_at(file, signature.offset, size, place)? && place == signature.magic {
            found.push(signature.content);
        }
    }
    for reader in [ext, partition_table, backup_partition_table, md_at_the_end, zfs, drbd] {
        found.extend(reader(file, size)?);
    }
    let mut seen = Vec::new();
    found.retain(|content| {
        let is_new = !seen.contains(content);
        seen.push(*content);
        is_new
    });
    Ok(found)
}

/// Fills `bytes`, or says that the file is not that long.
fn read_at(file: &File, offset: u64, size: u64, bytes: &mut [u8]) -> io::Result<bool> {
    if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > size) {
        return Ok(false);
    }
    file.read_exact_at(bytes, offset).map(|()| true)
}

/// ext2, ext3 and ext4 share their magic and differ in feature flags.
fn ext(file: &File, size: u64) -> io::Result<Option<&'static str>> {
    const JOURNAL: u8 = 0x04;
    // Anything of extents, 64 bit, multi-mount protection, flexible groups.
    const EXT4_INCOMPATIBLE: u16 = 0x0040 | 0x0080 | 0x0100 | 0x0200;
    let mut superblock = [0; 0x68];
    if !read_at(file, 1024, size, &mut superblock)? || superblock[0x38..0x3a] != [0x53, 0xef] {
        return Ok(None);
    }
    let incompatible = u16::from_le_bytes([superblock[0x60], superblock[0x61]]);
    Ok(Some(if incompatible & EXT4_INCOMPATIBLE != 0 {
        "an ext4 file system"
    } else if superblock[0x5c] & JOURNAL != 0 {
        "an ext3 file system"
    } else {
        "an ext2 file system"
    }))
}

/// An MBR has no magic of its own: the boot signature, and entries that make sense.
fn partition_table(file: &File, size: u64) -> io::Result<Option<&'static str>> {
    const PROTECTIVE: u8 = 0xee;
    let mut sector = [0; 512];
    if !read_at(file, 0, size, &mut sector)? || sector[510..] != [0x55, 0xaa] {
        return Ok(None);
    }
    let mut has_partition = false;
    for entry in sector[446..510].chunks_exact(16) {
        let (boot, kind) = (entry[0], entry[4]);
        if boot & 0x7f != 0 {
            // Boot code of a file system, not a table.
            return Ok(None);
        }
        let has_sectors = entry[12..16] != [0; 4];
        has_partition |= kind != 0 && kind != PROTECTIVE && has_sectors;
    }
    Ok(has_partition.then_some("an MBR partition table"))
}

/// The copy in the last block, which outlives the first one.
fn backup_partition_table(file: &File, size: u64) -> io::Result<Option<&'static str>> {
    for block in [512, 4096] {
        let mut magic = [0; 8];
        let Some(offset) = size.checked_sub(block) else { continue };
        if read_at(file, offset, size, &mut magic)? && &magic == b"EFI PART" {
            return Ok(Some("a GUID partition table"));
        }
    }
    Ok(None)
}

/// md 0.90 lies in the last whole 64 KiB, md 1.0 at least 8 KiB before the end.
fn md_at_the_end(file: &File, size: u64) -> io::Result<Option<&'static str>> {
    const MAGIC: [u8; 4] = [0xfc, 0x4e, 0x2b, 0xa9];
    let old = (size / 65_536).checked_sub(1).map(|last| last * 65_536);
    let new = (size / 512).checked_sub(16).map(|sector| sector / 8 * 8 * 512);
    let places = [(old, "a member of an md array (0.90)"), (new, "a member of an md array (1.0)")];
    for (offset, content) in places {
        let Some(offset) = offset else { continue };
        let mut magic = [0; 4];
        if !read_at(file, offset, size, &mut magic)? {
            continue;
        }
        // 0.90 is written in the byte order of the host.
        let swapped = [MAGIC[3], MAGIC[2], MAGIC[1], MAGIC[0]];
        if magic == MAGIC || (content.contains("0.90") && magic == swapped) {
            return Ok(Some(content));
        }
    }
    Ok(None)
}

/// An uberblock in any of the four labels; they are 1 KiB apart or more, in either byte order.
fn zfs(file: &File, size: u64) -> io::Result<Option<&'static str>> {
    const LABEL: u64 = 256 << 10;
    const UBERBLOCKS: u64 = 128 << 10;
    let end = size / LABEL * LABEL;
    let labels = [Some(0), Some(LABEL), end.checked_sub(2 * LABEL), end.checked_sub(LABEL)];
    let mut ring = vec![0; 128 << 10];
    for label in labels.into_iter().flatten() {
        if !read_at(file, label + UBERBLOCKS, size, &mut ring)? {
            continue;
        }
        let is_uberblock = |magic: &[u8]| {
            magic == [0x0c, 0xb1, 0xba, 0, 0, 0, 0, 0] || magic == [0, 0, 0, 0, 0, 0xba, 0xb1, 0x0c]
        };
        if ring.chunks_exact(1024).any(|slot| is_uberblock(&slot[..8])) {
            return Ok(Some("a member of a ZFS pool"));
        }
    }
    Ok(None)
}

/// DRBD's internal metadata lies in the last 4 KiB.
fn drbd(file: &File, size: u64) -> io::Result<Option<&'static str>> {
    let mut block = [0; 64];
    let Some(offset) = (size / 4096).checked_sub(1).map(|last| last * 4096) else { return Ok(None) };
    if !read_at(file, offset, size, &mut block)? {
        return Ok(None);
    }
    let magics = [[0x83, 0x74, 0x02, 0x67], [0x83, 0x74, 0x02, 0x6b], [0x83, 0x74, 0x02, 0x6d]];
    let is_drbd = magics.iter().any(|magic| block[60..64] == *magic);
    Ok(is_drbd.then_some("a DRBD device"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 4 << 20;

    /// What is found in a file with these bytes at these places.
    fn found(places: &[(u64, &[u8])]) -> Vec<&'static str> {
        let file = tempfile::tempfile().unwrap();
        file.set_len(SIZE).unwrap();
        for (offset, bytes) in places {
            file.write_all_at(bytes, *offset).unwrap();
        }
        of(&file).unwrap()
    }

    #[test]
    fn every_row_of_the_table_is_found_alone() {
        for signature in &SIGNATURES {
            assert_eq!(found(&[(signature.offset, signature.magic)]), [signature.content]);
        }
    }

    #[test]
    fn empty_and_short_files_hold_nothing() {
        assert!(found(&[]).is_empty());
        let file = tempfile::tempfile().unwrap();
        for size in [0, 1, 511, 512, 5000] {
            file.set_len(size).unwrap();
            assert!(of(&file).unwrap().is_empty(), "{size}");
        }
    }

    #[test]
    fn ext_file_systems_are_told_apart() {
        let magic: (u64, &[u8]) = (1024 + 0x38, &[0x53, 0xef]);
        let journal: (u64, &[u8]) = (1024 + 0x5c, &[0x04]);
        assert_eq!(found(&[magic]), ["an ext2 file system"]);
        assert_eq!(found(&[magic, journal]), ["an ext3 file system"]);
        assert_eq!(found(&[magic, journal, (1024 + 0x60, &[0x40])]), ["an ext4 file system"]);
    }

    #[test]
    fn an_mbr_is_a_table_only_with_entries() {
        let boot: (u64, &[u8]) = (510, &[0x55, 0xaa]);
        let kind: (u64, &[u8]) = (446 + 4, &[0x83]);
        let length: (u64, &[u8]) = (446 + 12, &[1]);
        assert_eq!(found(&[boot, kind, length]), ["an MBR partition table"]);
        assert!(found(&[boot]).is_empty());
        assert!(found(&[boot, kind, length, (446, &[0x33])]).is_empty(), "boot code");
        let protective: (u64, &[u8]) = (446 + 4, &[0xee]);
        let gpt: (u64, &[u8]) = (512, b"EFI PART");
        assert_eq!(found(&[boot, protective, length, gpt]), ["a GUID partition table"]);
    }

    #[test]
    fn what_lies_at_the_end_is_found() {
        let md: &[u8] = &[0xfc, 0x4e, 0x2b, 0xa9];
        assert_eq!(found(&[(SIZE - 512, b"EFI PART")]), ["a GUID partition table"]);
        assert_eq!(found(&[(SIZE - 65_536, md)]), ["a member of an md array (0.90)"]);
        assert_eq!(found(&[(SIZE - 65_536, &[0xa9, 0x2b, 0x4e, 0xfc])]), ["a member of an md array (0.90)"]);
        assert_eq!(found(&[(SIZE - 8192, md)]), ["a member of an md array (1.0)"]);
        assert_eq!(found(&[(SIZE - 4096 + 60, &[0x83, 0x74, 0x02, 0x6d])]), ["a DRBD device"]);
        let uberblock: &[u8] = &[0x0c, 0xb1, 0xba, 0, 0, 0, 0, 0];
        for label in [0, 256 << 10, SIZE - (512 << 10), SIZE - (256 << 10)] {
            assert_eq!(found(&[(label + (131 << 10), uberblock)]), ["a member of a ZFS pool"]);
        }
    }
}
