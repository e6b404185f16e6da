//! Memory for large buffers, many side by side in huge pages.
//!
//! A request of 1 MiB in small pages is 256 pieces to the device: they are pinned one by one, and many a disk takes
//! fewer pieces at once, so that the request is split. In huge pages it is one or two. Where the kernel has none left,
//! or gives none, the same addresses are small pages.
//!
//! What holds: pieces of a slab do not overlap; it is zeroed when it is mapped, and only the huge pages that were used
//! take memory; it is unmapped when its last piece has gone. Not here: who uses a piece (`buffer`).

use std::alloc::{Layout, handle_alloc_error};
use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};

use crate::sync::Arc;

/// Buffers below this are better off in small pages: a huge one would be mostly empty.
pub(super) const PIECE_MIN_BYTES: usize = 64 << 10;
/// A huge page of x86-64 and of most others.
const HUGE_PAGE_BYTES: usize = 2 << 20;
/// Address space of a slab; memory is taken by the huge page.
const SLAB_BYTES: usize = 32 << 20;

/// A mapping of anonymous memory.
#[derive(Debug)]
pub(super) struct Slab {
    mapping: NonNull<c_void>,
    mapped_bytes: usize,
}

// SAFETY: the value only keeps the mapping alive; whoever has a piece answers for its bytes.
#[expect(unsafe_code, reason = "a mapping behind a raw pointer")]
unsafe impl Send for Slab {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "a mapping behind a raw pointer")]
unsafe impl Sync for Slab {}

impl Drop for Slab {
    #[expect(unsafe_code, reason = "the counterpart of the mapping")]
    fn drop(&mut self) {
        // SAFETY: mapped by `Carving::new` at this size, unmapped once, and no piece is left.
        let _ = unsafe { munmap(self.mapping, self.mapped_bytes) };
    }
}

/// A slab that is being cut into pieces.
#[derive(Debug)]
pub(super) struct Carving {
    slab: Arc<Slab>,
    next: NonNull<u8>,
    left: usize,
}

// SAFETY: `next` points into the slab, at bytes that no piece has.
#[expect(unsafe_code, reason = "a mapping behind a raw pointer")]
unsafe impl Send for Carving {}

impl Carving {
    /// Maps a slab that has room for at least `piece` bytes.
    #[expect(unsafe_code, reason = "a mapping has no safe form")]
    fn new(piece: usize) -> Self {
        let room = SLAB_BYTES.max(piece.next_multiple_of(HUGE_PAGE_BYTES));
        // So much more that a huge page can begin at the first byte that is used.
        let mapped_bytes = room + HUGE_PAGE_BYTES;
        let layout =
            Layout::from_size_align(mapped_bytes, HUGE_PAGE_BYTES).expect("a slab fits the address space");
        let length = NonZeroUsize::new(mapped_bytes).expect("a slab is not empty");
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let mapping = unsafe { mmap_anonymous(None, length, access, MapFlags::MAP_PRIVATE) };
        let Ok(mapping) = mapping else { handle_alloc_error(layout) };
        let slab = Arc::new(Slab { mapping, mapped_bytes });
        let start = mapping.cast::<u8>();
        // SAFETY: less than a huge page further, which is less than was mapped.
        let next = unsafe { start.add(start.align_offset(HUGE_PAGE_BYTES)) };
        // Without it memory comes in small pages: slower, and as good.
        // SAFETY: the range lies in the mapping.
        let _ = unsafe { madvise(next.cast(), room, MmapAdvise::MADV_HUGEPAGE) };
        Self { slab, next, left: room }
    }

    /// Cuts off `bytes` zeroed bytes, from a new slab where this one has too few left.
    #[expect(unsafe_code, reason = "a piece begins where the last one ends")]
    pub(super) fn cut(carving: &mut Option<Self>, bytes: usize) -> (NonNull<u8>, Arc<Slab>) {
        let this = match carving.take().filter(|this| this.left >= bytes) {
            Some(this) => carving.insert(this),
            None => carving.insert(Self::new(bytes)),
        };
        let piece = this.next;
        this.left -= bytes;
        // SAFETY: `bytes` were left, so that this is in the mapping, or just behind its last byte.
        this.next = unsafe { piece.add(bytes) };
        (piece, Arc::clone(&this.slab))
    }
}

#[cfg(test)]
mod tests {
    use super::{Carving, HUGE_PAGE_BYTES, SLAB_BYTES};
    use crate::BufferPool;

    #[test]
    fn pieces_lie_side_by_side_and_a_full_slab_is_followed_by_another() {
        let mut carving = None;
        let piece = (1 << 20) + 4096;
        let (first, slab) = Carving::cut(&mut carving, piece);
        assert!(first.as_ptr().addr().is_multiple_of(HUGE_PAGE_BYTES));
        let in_slab = SLAB_BYTES / piece;
        let mut last = first;
        for number in 1..in_slab {
            let (next, of) = Carving::cut(&mut carving, piece);
            assert_eq!(next.as_ptr().addr(), last.as_ptr().addr() + piece, "{number}");
            assert_eq!(of.mapping, slab.mapping);
            last = next;
        }
        let (_, other) = Carving::cut(&mut carving, piece);
        assert_ne!(other.mapping, slab.mapping);
        let (_, large) = Carving::cut(&mut carving, 2 * SLAB_BYTES);
        assert!(large.mapped_bytes >= 2 * SLAB_BYTES);
    }

    #[test]
    fn large_buffers_are_zeroed_apart_and_outlive_their_pool() {
        let pool = BufferPool::new();
        let mut buffers: Vec<_> = (0..40).map(|_| pool.take(1 << 20)).collect();
        drop(pool);
        for (number, buffer) in (0_u8..).zip(&mut buffers) {
            assert!(buffer.iter().all(|byte| *byte == 0), "{number}");
            buffer.fill(number + 1);
        }
        for (number, buffer) in (0_u8..).zip(&buffers) {
            assert!(buffer.iter().all(|byte| *byte == number + 1), "{number}");
        }
    }
}
