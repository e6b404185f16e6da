//! Aligned buffers that a request can own, share, and give back to a pool.
//!
//! What holds:
//!
//! * the memory of a [`Buffer`] has exactly one handle, so it may be written; a [`SharedBuffer`] may
//!   have many and is never written again;
//! * all memory is zeroed when it is first allocated, and aligned to [`ALIGNMENT_BYTES`];
//! * a buffer that is dropped goes back to its pool, whole; nothing is allocated once warm;
//! * whoever holds a handle keeps the memory alive: a hung I/O keeps its buffer.
//!
//! A buffer that comes from a pool carries old bytes: who writes records clears what it does not fill. Not here: where
//! the memory of large ones comes from (`slab`).

mod slab;

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::PoisonError;

use crate::sync::{Arc, Mutex};
use slab::{Carving, PIECE_MIN_BYTES, Slab};

/// Alignment of every buffer: a page, which satisfies O_DIRECT everywhere.
pub const ALIGNMENT_BYTES: usize = 4096;

/// Buffers of one size class that a pool keeps for later, at most.
const KEPT_PER_CLASS_MAX: usize = 256;

/// An allocation of whole pages. The one place of this file that needs `unsafe`.
struct Pages {
    pointer: NonNull<u8>,
    capacity: usize,
    /// What they are a piece of; none where they were allocated by themselves.
    slab: Option<Arc<Slab>>,
    /// Where they go at the end; none while they lie there.
    pool: Option<Arc<Shelves>>,
    /// Tells a test of interleavings who reads and writes the memory.
    #[cfg(loom)]
    access: loom::cell::UnsafeCell<()>,
}

// SAFETY: the memory belongs to this value alone, is not tied to a thread, and is only reached
// through `&self` (shared bytes that nobody writes) or `&mut self`.
#[expect(unsafe_code, reason = "owned memory behind a raw pointer")]
unsafe impl Send for Pages {}
// SAFETY: as above; `&Pages` gives only `&[u8]`.
#[expect(unsafe_code, reason = "owned memory behind a raw pointer")]
unsafe impl Sync for Pages {}

#[expect(unsafe_code, reason = "page-aligned memory is not to be had from Vec")]
impl Pages {
    fn new(capacity: usize) -> Self {
        assert!(capacity > 0 && capacity.is_multiple_of(ALIGNMENT_BYTES));
        let layout = Self::layout(capacity);
        // SAFETY: the layout has a non-zero size.
        let pointer = unsafe { alloc_zeroed(layout) };
        let Some(pointer) = NonNull::new(pointer) else { handle_alloc_error(layout) };
        Self::over(pointer, capacity, None)
    }

    /// Pages of a pool.
    fn pooled(capacity: usize, shelves: &Arc<Shelves>) -> Self {
        let mut pages = if capacity < PIECE_MIN_BYTES {
            Self::new(capacity)
        } else {
            assert!(capacity.is_multiple_of(ALIGNMENT_BYTES));
            let mut carving = shelves.carving.lock().unwrap_or_else(PoisonError::into_inner);
            let (pointer, slab) = Carving::cut(&mut carving, capacity);
            Self::over(pointer, capacity, Some(slab))
        };
        pages.pool = Some(Arc::clone(shelves));
        pages
    }

    fn over(pointer: NonNull<u8>, capacity: usize, slab: Option<Arc<Slab>>) -> Self {
        Self {
            pointer,
            capacity,
            slab,
            pool: None,
            #[cfg(loom)]
            access: loom::cell::UnsafeCell::new(()),
        }
    }

    fn layout(capacity: usize) -> Layout {
        Layout::from_size_align(capacity, ALIGNMENT_BYTES).expect("a buffer fits the address space")
    }

    fn bytes(&self) -> &[u8] {
        #[cfg(loom)]
        self.access.with(|_| ());
        // SAFETY: `pointer` is valid for `capacity` initialised bytes as long as `self` lives, and
        // writes need `&mut self`.
        unsafe { std::slice::from_raw_parts(self.pointer.as_ptr(), self.capacity) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        #[cfg(loom)]
        self.access.with_mut(|_| ());
        // SAFETY: as in `bytes`; `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.as_ptr(), self.capacity) }
    }
}

impl Drop for Pages {
    #[expect(unsafe_code, reason = "the counterpart of the allocation")]
    fn drop(&mut self) {
        if self.slab.is_none() {
            // SAFETY: allocated by `new` with the same layout, and freed once.
            unsafe { dealloc(self.pointer.as_ptr(), Self::layout(self.capacity)) }
        }
    }
}

/// Gives the pages back to their pool if this was the last handle.
fn release(mut pages: Arc<Pages>) {
    // Two last handles dropped at once both see a count of two: the memory is then freed by the
    // second and not kept. That is a miss of the pool and no fault.
    if let Some(alone) = Arc::get_mut(&mut pages)
        && let Some(shelves) = alone.pool.take()
    {
        shelves.put(pages);
    }
}

/// Exclusive, writable, aligned memory.
pub struct Buffer {
    pages: Option<Arc<Pages>>,
    length: usize,
}

impl Buffer {
    /// A zeroed buffer of `length` bytes that belongs to no pool.
    #[must_use]
    pub fn zeroed(length: usize) -> Self {
        let capacity = length.next_multiple_of(ALIGNMENT_BYTES).max(ALIGNMENT_BYTES);
        Self { pages: Some(Arc::new(Pages::new(capacity))), length }
    }

    /// A copy of `bytes`.
    #[must_use]
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut buffer = Self::zeroed(bytes.len());
        buffer.copy_from_slice(bytes);
        buffer
    }

    /// Bytes the memory has room for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.pages().capacity
    }

    /// Changes the length within the capacity. Bytes that come into view are whatever the memory
    /// held.
    ///
    /// # Panics
    /// If `length` is above the capacity.
    pub fn resize(&mut self, length: usize) {
        assert!(length <= self.capacity(), "a buffer does not grow");
        self.length = length;
    }

    /// Ends writing: the bytes can now be shared.
    #[must_use]
    pub fn freeze(mut self) -> SharedBuffer {
        SharedBuffer { pages: self.pages.take(), length: self.length }
    }

    fn pages(&self) -> &Arc<Pages> {
        self.pages.as_ref().expect("pages are there until drop or freeze")
    }
}

impl Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.pages().bytes()[..self.length]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        let length = self.length;
        let pages = self.pages.as_mut().expect("pages are there until drop or freeze");
        &mut Arc::get_mut(pages).expect("a Buffer is the only handle of its pages").bytes_mut()[..length]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(pages) = self.pages.take() {
            release(pages);
        }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes)", self.length)
    }
}

/// Shared, immutable, aligned memory; a clone is another handle on the same bytes.
pub struct SharedBuffer {
    pages: Option<Arc<Pages>>,
    length: usize,
}

impl SharedBuffer {
    /// The memory for writing again, if this is the only handle; else the handle back.
    ///
    /// # Errors
    /// The handle itself, when there are others.
    pub fn try_into_buffer(mut self) -> Result<Buffer, Self> {
        let pages = self.pages.as_mut().expect("pages are there until drop");
        if Arc::get_mut(pages).is_none() {
            return Err(self);
        }
        Ok(Buffer { pages: self.pages.take(), length: self.length })
    }
}

impl Clone for SharedBuffer {
    fn clone(&self) -> Self {
        Self { pages: self.pages.clone(), length: self.length }
    }
}

impl Deref for SharedBuffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.pages.as_ref().expect("pages are there until drop").bytes()[..self.length]
    }
}

impl Drop for SharedBuffer {
    fn drop(&mut self) {
        if let Some(pages) = self.pages.take() {
            release(pages);
        }
    }
}

impl fmt::Debug for SharedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedBuffer({} bytes)", self.length)
    }
}

/// Free pages by size, and the slab that large new ones are cut from.
struct Shelves {
    free: Mutex<Vec<(usize, Vec<Arc<Pages>>)>>,
    carving: Mutex<Option<Carving>>,
}

impl Shelves {
    fn put(&self, pages: Arc<Pages>) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let capacity = pages.capacity;
        let index = free.iter().position(|(size, _)| *size == capacity).unwrap_or_else(|| {
            free.push((capacity, Vec::new()));
            free.len() - 1
        });
        if free[index].1.len() < KEPT_PER_CLASS_MAX {
            free[index].1.push(pages);
        }
    }

    fn take(&self, capacity: usize) -> Option<Arc<Pages>> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.iter_mut().find(|(size, _)| *size == capacity)?.1.pop()
    }
}

/// A pool of aligned buffers, one shelf per size. Clones share the shelves.
#[derive(Clone)]
pub struct BufferPool {
    shelves: Arc<Shelves>,
}

impl BufferPool {
    /// An empty pool.
    #[must_use]
    pub fn new() -> Self {
        Self { shelves: Arc::new(Shelves { free: Mutex::new(Vec::new()), carving: Mutex::new(None) }) }
    }

    /// A buffer of `length` bytes, from the pool if one of that size lies there. Its content is
    /// whatever it held before; a new one is zeroed.
    #[must_use]
    pub fn take(&self, length: usize) -> Buffer {
        let capacity = length.next_multiple_of(ALIGNMENT_BYTES).max(ALIGNMENT_BYTES);
        let pages = match self.shelves.take(capacity) {
            Some(mut pages) => {
                let alone = Arc::get_mut(&mut pages).expect("what lies in the pool has one handle");
                alone.pool = Some(Arc::clone(&self.shelves));
                pages
            }
            None => Arc::new(Pages::pooled(capacity, &self.shelves)),
        };
        Buffer { pages: Some(pages), length }
    }

    /// As [`take`](Self::take), with every byte zero.
    #[must_use]
    pub fn take_zeroed(&self, length: usize) -> Buffer {
        let mut buffer = self.take(length);
        buffer.fill(0);
        buffer
    }
}

impl Default for BufferPool {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BufferPool")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_buffer_comes_back() {
        let pool = BufferPool::new();
        let first = pool.take(5000);
        assert_eq!(first.len(), 5000);
        assert_eq!(first.as_ptr() as usize % ALIGNMENT_BYTES, 0);
        let place = first.as_ptr();
        drop(first.freeze());
        assert_eq!(pool.take(8000).as_ptr(), place);
    }

    #[test]
    fn shared_bytes_become_writable_only_alone() {
        let shared = Buffer::copy_of(b"segment").freeze();
        let other = shared.clone();
        let shared = shared.try_into_buffer().expect_err("two handles");
        drop(other);
        let mut buffer = shared.try_into_buffer().expect("one handle");
        buffer[0] = b'S';
        assert_eq!(&buffer[..], b"Segment");
    }

    #[test]
    fn the_last_of_many_handles_returns_the_memory() {
        let pool = BufferPool::new();
        let shared = pool.take(4096).freeze();
        let place = shared.as_ptr();
        let handles: Vec<_> = (0..8).map(|_| shared.clone()).collect();
        drop(shared);
        drop(handles);
        assert_eq!(pool.take(4096).as_ptr(), place);
    }

    #[test]
    #[should_panic(expected = "does not grow")]
    fn a_buffer_does_not_grow() {
        Buffer::zeroed(10).resize(4097);
    }
}
