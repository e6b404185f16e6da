//! The bytes of a fuzzer, read as choices: numbers, runs of bytes, and changes to a record.
//!
//! What holds: reading never fails (an input that has ended gives zeros) and consumes at least a byte while
//! there is one, so that every program of an input ends with it. Not here: what is done with the choices.

use volume::record::Field;

/// Changes of one patch, at most.
const CHANGES_MAX: usize = 64;
/// Numbers at which something may turn over.
const EDGES: [u64; 16] = [
    0,
    1,
    2,
    56,
    57,
    58,
    0xFF,
    0x0FFF,
    0x1000,
    0xFFFF,
    0xFFFF_FFFF,
    0x1_0000_0000,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 1,
    u64::MAX,
];

/// The rest of an input.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// All of it.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// At most `count` bytes.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// `N` bytes, zeros behind the end.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.take(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    /// Two bytes.
    pub fn short(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    /// Eight bytes.
    pub fn long(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// An index below `bound`, which is not 0.
    pub fn index(&mut self, bound: usize) -> usize {
        let choice = if bound > 0x100 { usize::from(self.short()) } else { usize::from(self.byte()) };
        choice % bound
    }

    /// A number: one at an edge, a small one, or any.
    pub fn number(&mut self) -> u64 {
        match self.byte() {
            choice @ 0..16 => EDGES[usize::from(choice)],
            choice @ 16..0xE0 => u64::from(choice - 16),
            0xE0..0xF0 => self.short().into(),
            _ => self.long(),
        }
    }

    /// Changes `bytes` as the rest of the input says; `fields` are the places worth hitting.
    pub fn patch(&mut self, bytes: &mut [u8], fields: &[Field]) {
        for _ in 0..CHANGES_MAX {
            if self.is_empty() || bytes.is_empty() {
                return;
            }
            self.change(bytes, fields);
        }
    }

    fn change(&mut self, bytes: &mut [u8], fields: &[Field]) {
        let kind = self.byte() % 8;
        if kind >= 4 && !fields.is_empty() {
            let field = fields[self.index(fields.len())];
            if let Some(place) = bytes.get_mut(field.offset..field.offset + field.size) {
                self.change_field(kind, place);
            }
            return;
        }
        let at = usize::from(self.short()) % bytes.len();
        match kind % 4 {
            0 => {
                let length = usize::from(self.byte() % 64);
                let new = self.take(length.min(bytes.len() - at));
                bytes[at..at + new.len()].copy_from_slice(new);
            }
            1 => bytes[at] ^= 1 << (self.byte() % 8),
            2 => {
                let end = bytes.len().min(at + usize::from(self.byte()));
                bytes[at..end].fill(self.byte());
            }
            _ => {
                let from = usize::from(self.short()) % bytes.len();
                let length = usize::from(self.byte()).min(bytes.len() - at.max(from));
                bytes.copy_within(from..from + length, at);
            }
        }
    }

    fn change_field(&mut self, kind: u8, place: &mut [u8]) {
        let width = place.len().min(8);
        let mut word = [0; 8];
        word[..width].copy_from_slice(&place[..width]);
        let old = u64::from_le_bytes(word);
        let new = match kind {
            4 => self.number(),
            5 => old.wrapping_add(u64::from(self.byte())),
            6 => old.wrapping_sub(u64::from(self.byte())),
            _ => {
                place.fill(0);
                return;
            }
        };
        place[..width].copy_from_slice(&new.to_le_bytes()[..width]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ended_input_gives_zeros() {
        let mut input = Input::new(&[7]);
        assert_eq!((input.long(), input.byte(), input.index(300)), (7, 0, 0));
        assert!(input.is_empty());
    }

    #[test]
    fn patches_stay_inside_for_all_small_programs() {
        let fields = [Field { name: "a", offset: 0, size: 8 }, Field { name: "b", offset: 60, size: 8 }];
        for kind in 0..8 {
            for at in 0..=255 {
                let mut bytes = [3; 64];
                Input::new(&[kind, at, at, 0xFF, 9, 9, 9]).patch(&mut bytes, &fields);
                Input::new(&[kind, at, at, 0xFF]).patch(&mut bytes[..1], &[]);
            }
        }
    }
}
