//! Fuzz targets: ordinary functions that take any bytes and panic where a promise is broken.
//!
//! * [`TARGETS`]: all of them, in one table; the crate `fuzz/` and the test `tests/fuzzing.rs` run the same
//!   functions, and a test holds table, crate and corpus together;
//! * [`input`]: how bytes become choices; [`sample`]: the sound records that are changed; [`record`]: what
//!   every record promises;
//! * the targets themselves, one family a file; [`scene`], [`disk`], [`memory_files`]: what the large
//!   ones work on;
//! * [`mutate`]: inputs without a fuzzer.
//!
//! A sealed record never verifies with random bytes, so targets change sound records and then seal them
//! again, or do not: that is a choice of the input. Without the seal nothing but the original may open; with
//! it the decoder behind has to hold.
//!
//! Not here: the configuration, which belongs to the application (`app-cli/tests/configuration.rs`).

pub mod connection_records;
pub mod control;
pub mod disk;
pub mod handshake;
pub mod hostile_disk;
pub mod input;
pub mod lane_records;
pub mod local_state;
pub mod memory_files;
pub mod messages;
pub mod mutate;
pub mod names;
pub mod nbd;
pub mod record;
pub mod sample;
pub mod scene;
pub mod volume_records;

/// One fuzz target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: that of its file in `fuzz/fuzz_targets` and of its folder in `fuzz/corpus`.
    pub name: &'static str,
    /// What it feeds with bytes.
    pub what: &'static str,
    /// Runs one input.
    pub run: fn(&[u8]),
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

const fn target(
    name: &'static str,
    what: &'static str,
    run: fn(&[u8]),
    seeds: fn() -> Vec<Vec<u8>>,
) -> Target {
    Target { name, what, run, seeds }
}

/// All targets, the fast ones first.
pub const TARGETS: &[Target] = &[
    target("names", "relative paths, targets of links, text fields", names::names, names::names_seeds),
    target("path_address", "path addresses", names::path_address, names::path_address_seeds),
    target(
        "nbd_handshake",
        "the negotiation with an NBD server",
        nbd::nbd_handshake,
        nbd::nbd_handshake_seeds,
    ),
    target(
        "nbd_reply",
        "requests to an NBD server that answers anything",
        nbd::nbd_reply,
        nbd::nbd_reply_seeds,
    ),
    target("scsi_sense", "sense data of SCSI", control::scsi_sense, control::scsi_sense_seeds),
    target("scsi_replies", "replies of SCSI, every kind", control::scsi_replies, control::scsi_replies_seeds),
    target("nvme_replies", "replies of NVMe, every kind", control::nvme_replies, control::nvme_replies_seeds),
    target("messages", "messages of sessions, every kind", messages::messages, messages::messages_seeds),
    target(
        "journal",
        "the receiver's journal: records, whole files",
        local_state::journal,
        local_state::journal_seeds,
    ),
    target("bell", "bell", lane_records::bell, lane_records::bell_seeds),
    target("beacon", "beacon, incarnation record", lane_records::beacon, lane_records::beacon_seeds),
    target("control_area", "in-directory", lane_records::control_area, lane_records::control_area_seeds),
    target(
        "secondary_device_table",
        "FIG. 6, numbering of segments",
        volume_records::secondary_device_table,
        volume_records::table_seeds,
    ),
    target(
        "process_id_entry",
        "FIG. 5, entries",
        connection_records::process_id_entry,
        connection_records::process_id_entry_seeds,
    ),
    target(
        "command_structure",
        "FIG. 5, sealed commands",
        connection_records::command_structure,
        connection_records::command_structure_seeds,
    ),
    target(
        "segment_header",
        "segments of all three forms",
        connection_records::segment_header,
        connection_records::segment_header_seeds,
    ),
    target("pair", "A/B pairs against a model", lane_records::pair, lane_records::pair_seeds),
    target(
        "pointer_table",
        "FIG. 7, its entries, and a reader of them",
        connection_records::pointer_table,
        connection_records::pointer_table_seeds,
    ),
    target(
        "writer_marks",
        "a writer under acknowledgements, failures and time",
        connection_records::writer_marks,
        connection_records::writer_marks_seeds,
    ),
    target(
        "host_table_row",
        "rows of the host table",
        volume_records::host_table_row,
        volume_records::row_seeds,
    ),
    target(
        "master_control_block",
        "FIG. 4, every copy",
        volume_records::master_control_block,
        volume_records::master_seeds,
    ),
    target("job_record", "records of jobs, as files", local_state::job_record, local_state::job_record_seeds),
    target(
        "partial_mark",
        "marks of partial files, as files",
        local_state::partial_mark,
        local_state::partial_mark_seeds,
    ),
    target("handshake", "handshake payloads and messages", handshake::handshake, handshake::seeds),
    target("session", "sessions with a peer that says anything", messages::session, messages::session_seeds),
    target(
        "volume_survey",
        "opening, survey, check of a damaged volume",
        hostile_disk::volume_survey,
        hostile_disk::volume_survey_seeds,
    ),
    target(
        "hostile_disk",
        "a transfer while somebody writes to the disk",
        hostile_disk::hostile_disk,
        hostile_disk::hostile_disk_seeds,
    ),
];

/// The target of that name.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn find(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).unwrap_or_else(|| panic!("no target `{name}`"))
}
