//! What PERSISTENT RESERVE IN brings back (SPC-6 6.16.2 to 6.16.5).
//!
//! Keeps true: a list that was cut short gives its whole entries and no more. Not here: asking (`reservations`).

use super::ReservationType;
use crate::scsi::number::{clipped, length_at, push, put, put_length, u16_at, u32_at, u64_at};
use crate::scsi::transport_id::TransportId;

/// Bytes of the head: generation, additional length.
const HEAD_BYTES: usize = 8;
/// Bytes of a full status descriptor without its TransportID.
const DESCRIPTOR_BYTES: usize = 24;

/// Generation, the bytes that follow the head as far as they came, and whether all came.
fn parse_head(bytes: &[u8]) -> Option<(u32, &[u8], bool)> {
    let (generation, length) = (u32_at(bytes, 0)?, length_at(bytes, 4)?);
    let (body, is_whole) = clipped(bytes, HEAD_BYTES, length);
    Some((generation, body, is_whole))
}

fn emit_head(generation: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; HEAD_BYTES];
    put(&mut bytes, 0, 4, generation);
    put_length(&mut bytes, 4, 4, body.len());
    bytes.extend_from_slice(body);
    bytes
}

/// READ KEYS.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyList {
    /// PRGENERATION: counts changes of registrations.
    pub generation: u32,
    /// The key of each registration; one that several nexuses have comes several times.
    pub keys: Vec<u64>,
    /// Whether all came.
    pub is_whole: bool,
}

impl KeyList {
    /// Reads it; `None` where not even the head came.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (generation, body, is_whole) = parse_head(bytes)?;
        let keys = body.chunks_exact(8).filter_map(|key| u64_at(key, 0)).collect();
        Some(Self { generation, keys, is_whole: is_whole && body.len().is_multiple_of(8) })
    }

    /// Its bytes.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(8 * self.keys.len());
        self.keys.iter().for_each(|key| push(&mut body, 8, *key));
        emit_head(self.generation, &body)
    }
}

/// The reservation of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reservation {
    /// The key of its holder; 0 where all registrants hold it.
    pub key: u64,
    /// Scope, 4 bits.
    pub scope: u8,
    /// Type.
    pub kind: ReservationType,
}

/// READ RESERVATION.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReservationReport {
    /// PRGENERATION.
    pub generation: u32,
    /// The reservation, if there is one that came whole.
    pub reservation: Option<Reservation>,
    /// Whether all came. Where not, `None` above says nothing.
    pub is_whole: bool,
}

impl ReservationReport {
    /// Reads it; `None` where not even the head came.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (generation, body, is_whole) = parse_head(bytes)?;
        let reservation = body.get(13).and_then(|last| {
            Some(Reservation { key: u64_at(body, 0)?, scope: last >> 4, kind: ReservationType::of(*last) })
        });
        let fits = body.is_empty() || reservation.is_some();
        Some(Self { generation, reservation, is_whole: is_whole && fits })
    }

    /// Its bytes.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let Some(reservation) = self.reservation else { return emit_head(self.generation, &[]) };
        let mut body = vec![0; 16];
        put(&mut body, 0, 8, reservation.key);
        body[13] = reservation.scope << 4 | reservation.kind.number();
        emit_head(self.generation, &body)
    }
}

/// REPORT CAPABILITIES.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "the standard has one bit for each")]
pub struct Capabilities {
    /// RLR_C: REPLACE LOST RESERVATION.
    pub replace_lost: bool,
    /// CRH: RESERVE and RELEASE of the old kind live with persistent reservations.
    pub compatible_handling: bool,
    /// SIP_C: initiator ports can be named in REGISTER.
    pub specify_initiators: bool,
    /// ATP_C: a registration can hold for all target ports.
    pub all_target_ports: bool,
    /// PTPL_C: it can outlast a loss of power.
    pub persist_capable: bool,
    /// PTPL_A: it does now.
    pub persist_active: bool,
    /// ALLOW COMMANDS, 3 bits.
    pub allow_commands: u8,
    /// Bit t set for type t; `None` where the unit does not tell (TMV).
    pub types: Option<u16>,
    /// Whether all came.
    pub is_whole: bool,
}

impl Capabilities {
    /// Reads it; `None` where fewer than four bytes came.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let announced = usize::from(u16_at(bytes, 0)?);
        let (can, does) = (*bytes.get(2)?, *bytes.get(3)?);
        let types = u16_at(bytes, 4).filter(|_| does & 0x80 != 0).map(u16::swap_bytes);
        Some(Self {
            replace_lost: can & 0x80 != 0,
            compatible_handling: can & 0x10 != 0,
            specify_initiators: can & 0x08 != 0,
            all_target_ports: can & 0x04 != 0,
            persist_capable: can & 0x01 != 0,
            persist_active: does & 0x01 != 0,
            allow_commands: does >> 4 & 7,
            types,
            is_whole: announced >= 8 && bytes.len() >= announced,
        })
    }

    /// Its bytes.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let mut bytes = vec![0, 8, 0, 0, 0, 0, 0, 0];
        let can = [
            (self.replace_lost, 0x80),
            (self.compatible_handling, 0x10),
            (self.specify_initiators, 0x08),
            (self.all_target_ports, 0x04),
            (self.persist_capable, 0x01),
        ];
        bytes[2] = can.iter().filter(|(set, _)| *set).map(|(_, bit)| bit).sum();
        bytes[3] = (self.allow_commands & 7) << 4 | u8::from(self.persist_active);
        if let Some(types) = self.types {
            bytes[3] |= 0x80;
            put(&mut bytes, 4, 2, types.swap_bytes());
        }
        bytes
    }

    /// Whether it says that it knows the type; a unit that does not tell says nothing against it.
    #[must_use]
    pub fn knows(&self, kind: ReservationType) -> bool {
        self.types.is_none_or(|types| types & 1 << kind.number() != 0)
    }
}

/// One registration.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Registrant {
    /// Its key.
    pub key: u64,
    /// ALL_TG_PT: it holds for all target ports, and `relative_port` says nothing.
    pub all_target_ports: bool,
    /// R_HOLDER.
    pub is_holder: bool,
    /// Scope of the reservation that it holds, 4 bits.
    pub scope: u8,
    /// Type of the reservation that it holds.
    pub kind: ReservationType,
    /// The target port.
    pub relative_port: u16,
    /// The initiator port; `None` where the descriptor has no TransportID that can be read.
    pub initiator: Option<TransportId>,
}

/// READ FULL STATUS.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FullStatus {
    /// PRGENERATION.
    pub generation: u32,
    /// All registrations.
    pub registrants: Vec<Registrant>,
    /// Whether all came.
    pub is_whole: bool,
}

impl FullStatus {
    /// Reads it; `None` where not even the head came.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (generation, mut body, mut is_whole) = parse_head(bytes)?;
        let mut registrants = Vec::new();
        while !body.is_empty() {
            let Some((registrant, length)) = Registrant::parse(body) else {
                is_whole = false;
                break;
            };
            registrants.push(registrant);
            body = &body[length..];
        }
        Some(Self { generation, registrants, is_whole })
    }

    /// Its bytes.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let body: Vec<u8> = self.registrants.iter().flat_map(Registrant::emit).collect();
        emit_head(self.generation, &body)
    }
}

impl Registrant {
    /// The descriptor at the beginning of `bytes` and its length; `None` where it did not come whole.
    fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let (fixed, length) = (bytes.get(..DESCRIPTOR_BYTES)?, length_at(bytes, 20)?);
        let (id, is_whole) = clipped(bytes, DESCRIPTOR_BYTES, length);
        let registrant = Self {
            key: u64_at(fixed, 0)?,
            all_target_ports: fixed[12] & 2 != 0,
            is_holder: fixed[12] & 1 != 0,
            scope: fixed[13] >> 4,
            kind: ReservationType::of(fixed[13]),
            relative_port: u16_at(fixed, 18)?,
            initiator: TransportId::parse(id).map(|(initiator, _)| initiator),
        };
        is_whole.then_some((registrant, DESCRIPTOR_BYTES + length))
    }

    fn emit(&self) -> Vec<u8> {
        let mut bytes = vec![0; DESCRIPTOR_BYTES];
        put(&mut bytes, 0, 8, self.key);
        bytes[12] = u8::from(self.all_target_ports) << 1 | u8::from(self.is_holder);
        bytes[13] = self.scope << 4 | self.kind.number();
        put(&mut bytes, 18, 2, self.relative_port);
        let id = self.initiator.as_ref().map(TransportId::emit).unwrap_or_default();
        put_length(&mut bytes, 20, 4, id.len());
        bytes.extend(id);
        bytes
    }
}
