//! Byte maps, each written once.
//!
//! [`record!`](crate::record!) takes a structure with an offset before each field and makes of it the
//! structure, `parse`, `emit`, the field list that `inspect` prints and that `docs/format.md` is
//! checked against. What holds for every record:
//!
//! * `parse(emit(x)) == x`, and `parse` never panics, whatever the bytes;
//! * bytes that belong to no field are written as zeros and must read as zeros;
//! * fields are in order and do not overlap (checked when the program is compiled);
//! * integers are little-endian.
//!
//! Not here: seals and headers (`header`), what values mean.

use std::fmt::Write as _;

use byteorder::{ByteOrder, LittleEndian};
use thiserror::Error;

/// Why bytes are not a record.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Too few bytes.
    #[error("{record}: {have} bytes, {need} are needed")]
    Short {
        /// The record.
        record: &'static str,
        /// Bytes needed.
        need: usize,
        /// Bytes there.
        have: usize,
    },
    /// A reserved byte is not zero.
    #[error("{record}: reserved byte {offset} is not zero")]
    Reserved {
        /// The record.
        record: &'static str,
        /// Offset in the record.
        offset: usize,
    },
    /// A field has a value that it cannot have.
    #[error("{record}: field {field} has a value it cannot have")]
    Field {
        /// The record.
        record: &'static str,
        /// The field.
        field: &'static str,
    },
    /// The seal does not fit the bytes.
    #[error("{record}: the seal does not fit the bytes")]
    Seal {
        /// The record.
        record: &'static str,
    },
    /// Another record, another place, another volume.
    #[error("{record}: {what} is not what it should be here")]
    Header {
        /// The record.
        record: &'static str,
        /// Field of the header.
        what: &'static str,
    },
}

impl RecordError {
    /// What is wrong, for those who have said already which record it is.
    #[must_use]
    pub fn reason(&self) -> String {
        let text = self.to_string();
        text.split_once(": ").map_or_else(|| text.clone(), |(_, reason)| reason.to_owned())
    }
}

/// A value that is not one of its type's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadValue;

/// A value with a fixed number of bytes on disk.
pub trait Wire: Sized {
    /// Bytes on disk.
    const SIZE: usize;
    /// Writes exactly `SIZE` bytes.
    fn put(&self, bytes: &mut [u8]);
    /// Reads exactly `SIZE` bytes.
    ///
    /// # Errors
    /// If no value has these bytes.
    fn take(bytes: &[u8]) -> Result<Self, BadValue>;
    /// For people.
    fn show(&self) -> String;
}

macro_rules! wire_integer {
    ($type:ty, $size:literal, $read:ident, $write:ident) => {
        impl Wire for $type {
            const SIZE: usize = $size;
            fn put(&self, bytes: &mut [u8]) {
                LittleEndian::$write(bytes, *self);
            }
            fn take(bytes: &[u8]) -> Result<Self, BadValue> {
                Ok(LittleEndian::$read(bytes))
            }
            fn show(&self) -> String {
                self.to_string()
            }
        }
    };
}
wire_integer!(u16, 2, read_u16, write_u16);
wire_integer!(u32, 4, read_u32, write_u32);
wire_integer!(u64, 8, read_u64, write_u64);

impl Wire for u8 {
    const SIZE: usize = 1;
    fn put(&self, bytes: &mut [u8]) {
        bytes[0] = *self;
    }
    fn take(bytes: &[u8]) -> Result<Self, BadValue> {
        Ok(bytes[0])
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl<const N: usize> Wire for [u8; N] {
    const SIZE: usize = N;
    fn put(&self, bytes: &mut [u8]) {
        bytes.copy_from_slice(self);
    }
    fn take(bytes: &[u8]) -> Result<Self, BadValue> {
        bytes.try_into().map_err(|_| BadValue)
    }
    fn show(&self) -> String {
        show_bytes(self)
    }
}

/// Hexadecimal, long runs cut short.
#[must_use]
pub fn show_bytes(bytes: &[u8]) -> String {
    const SHOWN_MAX: usize = 16;
    if bytes.iter().all(|byte| *byte == 0) {
        return "0".into();
    }
    let mut text = String::new();
    for byte in bytes.iter().take(SHOWN_MAX) {
        let _ = write!(text, "{byte:02x}");
    }
    if bytes.len() > SHOWN_MAX {
        let _ = write!(text, "… ({} bytes)", bytes.len());
    }
    text
}

/// UTF-8 text of at most `N` − 1 bytes, zero-padded to `N`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text<const N: usize>(String);

impl<const N: usize> Text<N> {
    /// Takes a text that fits and holds no NUL.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        (text.len() < N && !text.contains('\0')).then(|| Self(text.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const N: usize> Wire for Text<N> {
    const SIZE: usize = N;
    fn put(&self, bytes: &mut [u8]) {
        bytes[..self.0.len()].copy_from_slice(self.0.as_bytes());
        bytes[self.0.len()..].fill(0);
    }
    fn take(bytes: &[u8]) -> Result<Self, BadValue> {
        let end = bytes.iter().position(|byte| *byte == 0).ok_or(BadValue)?;
        if bytes[end..].iter().any(|byte| *byte != 0) {
            return Err(BadValue);
        }
        let text = std::str::from_utf8(&bytes[..end]).map_err(|_| BadValue)?;
        Self::new(text).ok_or(BadValue)
    }
    fn show(&self) -> String {
        self.0.escape_debug().collect()
    }
}

/// At most `N` rows; rows after the last that is not all zeros do not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows<T, const N: usize>(Vec<T>);

impl<T, const N: usize> Default for Rows<T, N> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Wire, const N: usize> Rows<T, N> {
    /// Takes at most `N` rows.
    #[must_use]
    pub fn new(rows: Vec<T>) -> Option<Self> {
        (rows.len() <= N).then_some(Self(rows))
    }
}

impl<T, const N: usize> std::ops::Deref for Rows<T, N> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: Wire, const N: usize> Wire for Rows<T, N> {
    const SIZE: usize = T::SIZE * N;
    fn put(&self, bytes: &mut [u8]) {
        bytes.fill(0);
        for (row, place) in self.0.iter().zip(bytes.chunks_exact_mut(T::SIZE)) {
            row.put(place);
        }
    }
    fn take(bytes: &[u8]) -> Result<Self, BadValue> {
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last / T::SIZE + 1);
        bytes.chunks_exact(T::SIZE).take(used).map(T::take).collect::<Result<_, _>>().map(Self)
    }
    fn show(&self) -> String {
        let mut text = format!("{} of {N}", self.0.len());
        for (index, row) in self.0.iter().enumerate() {
            let _ = write!(text, "\n  [{index}] {}", row.show());
        }
        text
    }
}

/// One field of a record: where it stands and what it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Name, the seed's own where it has one.
    pub name: &'static str,
    /// Offset in the record, in bytes.
    pub offset: usize,
    /// Size in bytes.
    pub size: usize,
}

/// Whether fields are in order, do not overlap and end within `size`.
#[must_use]
pub const fn fields_fit(fields: &[Field], size: usize) -> bool {
    let (mut index, mut end) = (0, 0);
    while index < fields.len() {
        if fields[index].offset < end {
            return false;
        }
        end = fields[index].offset + fields[index].size;
        index += 1;
    }
    end <= size
}

/// The first byte outside the fields that is not zero.
#[must_use]
pub fn reserved_byte(fields: &[Field], bytes: &[u8]) -> Option<usize> {
    let mut end = 0;
    for field in fields.iter().map(|field| (field.offset, field.size)).chain([(bytes.len(), 0)]) {
        if let Some(at) = bytes[end..field.0].iter().position(|byte| *byte != 0) {
            return Some(end + at);
        }
        end = field.0 + field.1;
    }
    None
}

/// A structure with a byte map.
pub trait Record: Wire {
    /// What it is called.
    const NAME: &'static str;
    /// Its byte map.
    const FIELDS: &'static [Field];

    /// Writes the record over the first `SIZE` bytes, reserved bytes as zeros.
    fn emit(&self, bytes: &mut [u8]) {
        self.put(&mut bytes[..Self::SIZE]);
    }

    /// Reads a record.
    ///
    /// # Errors
    /// If there are too few bytes, a reserved byte is not zero, or a field cannot have its value.
    fn parse(bytes: &[u8]) -> Result<Self, RecordError>;

    /// Every field with its value, for `inspect`.
    fn show_fields(&self) -> Vec<(Field, String)>;
}

/// Defines a record: see the head of the module.
#[macro_export]
macro_rules! record {
    ($(#[$meta:meta])* $vis:vis struct $name:ident: $size:literal, $title:literal {
        $($(#[$field_meta:meta])* $offset:literal => $field:ident: $type:ty,)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        $vis struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
        }

        const _: () = assert!(
            $crate::record::fields_fit(<$name as $crate::record::Record>::FIELDS, $size),
            "fields overlap or reach beyond the record",
        );

        impl $crate::record::Wire for $name {
            const SIZE: usize = $size;
            fn put(&self, bytes: &mut [u8]) {
                bytes.fill(0);
                $($crate::record::Wire::put(
                    &self.$field,
                    &mut bytes[$offset..$offset + <$type as $crate::record::Wire>::SIZE],
                );)*
            }
            fn take(bytes: &[u8]) -> Result<Self, $crate::record::BadValue> {
                <Self as $crate::record::Record>::parse(bytes).map_err(|_| $crate::record::BadValue)
            }
            fn show(&self) -> String {
                let fields = $crate::record::Record::show_fields(self);
                let words = fields.iter().map(|(field, value)| format!("{} {value}", field.name));
                words.collect::<Vec<_>>().join(", ")
            }
        }

        impl $crate::record::Record for $name {
            const NAME: &'static str = $title;
            const FIELDS: &'static [$crate::record::Field] = &[$($crate::record::Field {
                name: stringify!($field),
                offset: $offset,
                size: <$type as $crate::record::Wire>::SIZE,
            },)*];

            fn parse(bytes: &[u8]) -> Result<Self, $crate::record::RecordError> {
                use $crate::record::{RecordError, Wire, reserved_byte};
                let record = Self::NAME;
                let Some(bytes) = bytes.get(..$size) else {
                    return Err(RecordError::Short { record, need: $size, have: bytes.len() });
                };
                if let Some(offset) = reserved_byte(Self::FIELDS, bytes) {
                    return Err(RecordError::Reserved { record, offset });
                }
                Ok(Self {
                    $($field: <$type as Wire>::take(&bytes[$offset..$offset + <$type as Wire>::SIZE])
                        .map_err(|_| RecordError::Field { record, field: stringify!($field) })?,)*
                })
            }

            fn show_fields(&self) -> Vec<($crate::record::Field, String)> {
                let values = [$($crate::record::Wire::show(&self.$field),)*];
                Self::FIELDS.iter().copied().zip(values).collect()
            }
        }
    };
}

/// Defines an enumeration with fixed codes on disk; other codes do not parse.
#[macro_export]
macro_rules! wire_enum {
    ($(#[$meta:meta])* $vis:vis enum $name:ident: $repr:ty {
        $($(#[$variant_meta:meta])* $variant:ident = $code:literal,)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        $vis enum $name {
            $($(#[$variant_meta])* $variant = $code,)*
        }

        impl $name {
            /// Every value, in the order of the codes.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The code on disk.
            #[must_use]
            pub const fn code(self) -> $repr {
                self as $repr
            }

            /// The value of a code.
            #[must_use]
            pub const fn from_code(code: $repr) -> Option<Self> {
                match code {
                    $($code => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }

        impl $crate::record::Wire for $name {
            const SIZE: usize = <$repr as $crate::record::Wire>::SIZE;
            fn put(&self, bytes: &mut [u8]) {
                self.code().put(bytes);
            }
            fn take(bytes: &[u8]) -> Result<Self, $crate::record::BadValue> {
                Self::from_code(<$repr as $crate::record::Wire>::take(bytes)?).ok_or($crate::record::BadValue)
            }
            fn show(&self) -> String {
                format!("{self:?} ({})", self.code())
            }
        }
    };
}

/// Makes a `bitflags` type a value on disk; unknown bits do not parse.
#[macro_export]
macro_rules! wire_flags {
    ($name:ty, $repr:ty) => {
        impl $crate::record::Wire for $name {
            const SIZE: usize = <$repr as $crate::record::Wire>::SIZE;
            fn put(&self, bytes: &mut [u8]) {
                self.bits().put(bytes);
            }
            fn take(bytes: &[u8]) -> Result<Self, $crate::record::BadValue> {
                Self::from_bits(<$repr as $crate::record::Wire>::take(bytes)?).ok_or($crate::record::BadValue)
            }
            fn show(&self) -> String {
                let names: Vec<_> = self.iter_names().map(|(name, _)| name).collect();
                format!("{:#x} {}", self.bits(), names.join("|")).trim_end().to_owned()
            }
        }
    };
}
