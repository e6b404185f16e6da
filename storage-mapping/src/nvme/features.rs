//! Get Features and Set Features (base specification 2.1, 5.1.11, 5.1.25): commands, identifiers, those that concern
//! reservations.
//!
//! Keeps true: a value goes into dword 11 as the caller gives it. Not here: whether it took effect.

use super::command;
use super::opcode::admin;
use crate::control_port::{ControlCommand, NvmeFields, Transfer};

/// Feature identifiers that are used by name.
pub mod id {
    /// Volatile Write Cache.
    pub const VOLATILE_WRITE_CACHE: u8 = 0x06;
    /// Asynchronous Event Configuration.
    pub const ASYNCHRONOUS_EVENTS: u8 = 0x0b;
    /// Keep Alive Timer.
    pub const KEEP_ALIVE_TIMER: u8 = 0x0f;
    /// Host Identifier.
    pub const HOST_IDENTIFIER: u8 = 0x81;
    /// Reservation Notification Mask.
    pub const RESERVATION_NOTIFICATION_MASK: u8 = 0x82;
    /// Reservation Persistence.
    pub const RESERVATION_PERSISTENCE: u8 = 0x83;
    /// Namespace Write Protection Config.
    pub const NAMESPACE_WRITE_PROTECTION: u8 = 0x84;
}

/// The name of a feature; a general one where it is not known.
#[must_use]
pub fn name(feature: u8) -> &'static str {
    match feature {
        0x01 => "Arbitration",
        0x02 => "Power Management",
        0x03 => "LBA Range Type",
        0x04 => "Temperature Threshold",
        0x05 => "Error Recovery",
        id::VOLATILE_WRITE_CACHE => "Volatile Write Cache",
        0x07 => "Number of Queues",
        0x08 => "Interrupt Coalescing",
        0x09 => "Interrupt Vector Configuration",
        0x0a => "Write Atomicity Normal",
        id::ASYNCHRONOUS_EVENTS => "Asynchronous Event Configuration",
        0x0c => "Autonomous Power State Transition",
        0x0d => "Host Memory Buffer",
        0x0e => "Timestamp",
        id::KEEP_ALIVE_TIMER => "Keep Alive Timer",
        0x10 => "Host Controlled Thermal Management",
        0x11 => "Non-Operational Power State Config",
        0x12 => "Read Recovery Level Config",
        0x13 => "Predictable Latency Mode Config",
        0x14 => "Predictable Latency Mode Window",
        0x16 => "Host Behavior Support",
        0x17 => "Sanitize Config",
        0x18 => "Endurance Group Event Configuration",
        0x19 => "I/O Command Set Profile",
        0x80 => "Software Progress Marker",
        id::HOST_IDENTIFIER => "Host Identifier",
        id::RESERVATION_NOTIFICATION_MASK => "Reservation Notification Mask",
        id::RESERVATION_PERSISTENCE => "Reservation Persistence",
        id::NAMESPACE_WRITE_PROTECTION => "Namespace Write Protection Config",
        0xc0.. => "vendor specific feature",
        _ => "unknown feature",
    }
}

/// Which value is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FeatureValue {
    /// As it is.
    #[default]
    Current,
    /// As delivered.
    Default,
    /// As saved.
    Saved,
    /// What can be done with the feature: saved (bit 0), per namespace (1), changed (2).
    Capabilities,
}

/// Get Features.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GetFeatures {
    /// Namespace; 0 where the feature is the controller's.
    pub namespace: u32,
    /// Feature identifier.
    pub feature: u8,
    /// Which value.
    pub value: FeatureValue,
    /// Dword 11.
    pub dword: u32,
    /// Bytes of data that come; most features have none and answer in the completion.
    pub data_bytes: usize,
}

impl GetFeatures {
    /// The host identifier of 128 bits: [`host_identifier`] reads it.
    #[must_use]
    pub fn host_identifier() -> Self {
        Self { dword: 1, data_bytes: 16, ..Self::of_controller(id::HOST_IDENTIFIER) }
    }

    /// The current value of a feature of the controller.
    #[must_use]
    pub fn of_controller(feature: u8) -> Self {
        Self { namespace: 0, feature, value: FeatureValue::Current, dword: 0, data_bytes: 0 }
    }

    /// The command.
    #[must_use]
    pub fn command(self) -> ControlCommand {
        let first = u32::from(self.feature) | (self.value as u32) << 8;
        let fields = fields(admin::GET_FEATURES, self.namespace, [first, self.dword]);
        command(fields, if self.data_bytes == 0 { Transfer::None } else { Transfer::In(self.data_bytes) })
    }

    /// Reads the command, to which `data_bytes` of data may come; `None` where it is another one.
    #[must_use]
    pub fn parse(fields: &NvmeFields, data_bytes: usize) -> Option<Self> {
        if fields.is_io || fields.opcode != admin::GET_FEATURES {
            return None;
        }
        let value = match fields.cdw10[0] >> 8 & 7 {
            0 => FeatureValue::Current,
            1 => FeatureValue::Default,
            2 => FeatureValue::Saved,
            3 => FeatureValue::Capabilities,
            _ => return None,
        };
        let feature = (fields.cdw10[0] & 0xff) as u8;
        Some(Self { namespace: fields.namespace, feature, value, dword: fields.cdw10[1], data_bytes })
    }
}

/// Set Features.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SetFeatures {
    /// Namespace; 0 where the feature is the controller's.
    pub namespace: u32,
    /// Feature identifier.
    pub feature: u8,
    /// SV: the value is saved.
    pub save: bool,
    /// Dword 11: the value.
    pub dword: u32,
    /// Data; most features have none.
    pub data: Vec<u8>,
}

impl SetFeatures {
    /// The host identifier of 128 bits.
    #[must_use]
    pub fn host_identifier(host: [u8; 16]) -> Self {
        Self { namespace: 0, feature: id::HOST_IDENTIFIER, save: false, dword: 1, data: host.to_vec() }
    }

    /// Whether the reservation of a namespace outlasts a loss of power.
    #[must_use]
    pub fn reservation_persistence(namespace: u32, persistent: bool) -> Self {
        let feature = id::RESERVATION_PERSISTENCE;
        Self { namespace, feature, save: false, dword: persistent.into(), data: Vec::new() }
    }

    /// The command.
    #[must_use]
    pub fn command(&self) -> ControlCommand {
        let first = u32::from(self.feature) | u32::from(self.save) << 31;
        let fields = fields(admin::SET_FEATURES, self.namespace, [first, self.dword]);
        let is_empty = self.data.is_empty();
        command(fields, if is_empty { Transfer::None } else { Transfer::Out(self.data.clone()) })
    }

    /// Reads the command and its data; `None` where it is another one.
    #[must_use]
    pub fn parse(fields: &NvmeFields, data: &[u8]) -> Option<Self> {
        if fields.is_io || fields.opcode != admin::SET_FEATURES {
            return None;
        }
        let [first, dword, ..] = fields.cdw10;
        let feature = (first & 0xff) as u8;
        Some(Self {
            namespace: fields.namespace,
            feature,
            save: first >> 31 != 0,
            dword,
            data: data.to_vec(),
        })
    }
}

fn fields(opcode: u8, namespace: u32, [first, second]: [u32; 2]) -> NvmeFields {
    NvmeFields { opcode, namespace, cdw10: [first, second, 0, 0, 0, 0], ..NvmeFields::default() }
}

/// The host identifier that Get Features brought: 16 bytes, or 8 in front of zeros; `None` where fewer came.
#[must_use]
pub fn host_identifier(data: &[u8]) -> Option<[u8; 16]> {
    let mut host = [0; 16];
    let length = if data.len() >= 16 { 16 } else { 8 };
    host[..length].copy_from_slice(data.get(..length)?);
    Some(host)
}
