//! What a connection carries: segments with a kind, a request and a payload, in order.
//!
//! A payload stays in the buffer that it was loaded into or read into: on its way out there is room
//! for the header block before it, so that a segment is sealed in place and written in one piece.
//! Not here: sequence numbers, seals and places on disk (`protocol`).

use storage_mapping::{Buffer, BufferPool};

/// Room before an outgoing payload: the segment's header block.
pub const HEADER_ROOM_BYTES: usize = 4096;

/// Bytes inside a buffer.
#[derive(Debug)]
pub struct Payload {
    buffer: Buffer,
    start: usize,
    length: usize,
}

impl Clone for Payload {
    /// A copy of the whole buffer, outside any pool. Nothing on the way of the data calls this; a
    /// simulator does, for the memory of a machine that was copied.
    fn clone(&self) -> Self {
        Self { buffer: Buffer::copy_of(&self.buffer), start: self.start, length: self.length }
    }
}

impl Payload {
    /// An outgoing payload with room for `capacity_bytes`, length zero, the header room before it.
    #[must_use]
    pub fn outgoing(pool: &BufferPool, capacity_bytes: usize) -> Self {
        let capacity = capacity_bytes.next_multiple_of(4096);
        Self { buffer: pool.take(HEADER_ROOM_BYTES + capacity), start: HEADER_ROOM_BYTES, length: 0 }
    }

    /// A payload that is `buffer[start..start + length]`.
    ///
    /// # Panics
    /// If that is not inside the buffer.
    #[must_use]
    pub fn inside(buffer: Buffer, start: usize, length: usize) -> Self {
        assert!(start.checked_add(length).is_some_and(|end| end <= buffer.len()));
        Self { buffer, start, length }
    }

    /// A copy of `bytes`, ready to go out.
    #[must_use]
    pub fn copy_of(pool: &BufferPool, bytes: &[u8]) -> Self {
        let mut payload = Self::outgoing(pool, bytes.len());
        payload.room()[..bytes.len()].copy_from_slice(bytes);
        payload.set_length(bytes.len());
        payload
    }

    /// The payload.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.start + self.length]
    }

    /// All bytes from the payload's start to the end of the buffer, to be filled.
    pub fn room(&mut self) -> &mut [u8] {
        let start = self.start;
        &mut self.buffer[start..]
    }

    /// Says how many bytes of the room are the payload.
    ///
    /// # Panics
    /// If there is less room.
    pub fn set_length(&mut self, length: usize) {
        assert!(self.start + length <= self.buffer.len());
        self.length = length;
    }

    /// Number of bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The buffer, with where the payload stands in it.
    #[must_use]
    pub fn into_parts(self) -> (Buffer, usize, usize) {
        (self.buffer, self.start, self.length)
    }
}

/// What the bytes of a segment are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SegmentKind {
    /// Bytes of one file or stream, at `offset`.
    Data,
    /// A run of framed messages.
    Command,
    /// A run of small files, whole.
    Pack,
}

/// One unit that a connection carries, in order, exactly once.
#[derive(Debug)]
pub struct Segment {
    /// What the bytes are.
    pub kind: SegmentKind,
    /// The request it belongs to (`ptr_process_req_id`).
    pub request: u64,
    /// Offset of the first byte in the file or stream; 0 for other kinds.
    pub offset: u64,
    /// The last segment of its message (FIG. 11, step 264).
    pub last: bool,
    /// The bytes.
    pub payload: Payload,
}
