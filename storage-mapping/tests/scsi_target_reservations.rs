//! Persistent reservations of the simulated target: the table of the standard, and a small model beside the real thing.

mod target_support;

use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use proptest::sample::select;
use storage_mapping::control_port::{ControlCommand, Transfer};
use storage_mapping::device::storage_system::SimulatedPath;
use storage_mapping::scsi::capacity::ReadCapacity;
use storage_mapping::scsi::log::{LogSelect, LogSense};
use storage_mapping::scsi::luns::ReportLuns;
use storage_mapping::scsi::mode::{ModeData, ModeForm, ModeSelect, ModeSense};
use storage_mapping::scsi::port_groups::{ReportPortGroups, SetPortGroups};
use storage_mapping::scsi::reservations::{
    KeyList, ParameterList, RegisterFlags, ReservationReport, ReservationType, ReserveInAction, ReserveOut,
    ReserveOutAction,
};
use storage_mapping::scsi::transport_id::TransportId;
use target_support::{
    Bench, C0, TUR, data_of, inquiry, raw, register, reserve, reserve_in, reserve_out, sense_of, status_of,
};

/// Types in the order of their numbers: 1, 3, 5, 6, 7, 8.
fn types() -> impl Iterator<Item = ReservationType> {
    ReservationType::ALL.into_iter().map(|(kind, ..)| kind)
}

/// A command and, by column, whether it is allowed (A) or conflicts (C), as in the tables of SPC-5 5.14.1 and SBC-4 4.17:
/// from any other nexus under write exclusive, and exclusive access; from a registered one under the four other types; from
/// one that is not registered under these four, of write exclusive and of exclusive access.
fn rows() -> Vec<(&'static str, ControlCommand, &'static str)> {
    let none = |cdb: &[u8]| raw(cdb, Transfer::None);
    let read = |cdb: &[u8]| raw(cdb, Transfer::In(512));
    let write = |cdb: &[u8]| raw(cdb, Transfer::Out(vec![7; 512]));
    vec![
        ("TEST UNIT READY", TUR(), "AAAAA"),
        ("REQUEST SENSE", read(&[0x03, 0, 0, 0, 252, 0]), "AAAAA"),
        ("INQUIRY", inquiry(None), "AAAAA"),
        ("READ KEYS", reserve_in(ReserveInAction::ReadKeys), "AAAAA"),
        ("READ RESERVATION", reserve_in(ReserveInAction::ReadReservation), "AAAAA"),
        ("REPORT CAPABILITIES", reserve_in(ReserveInAction::ReportCapabilities), "AAAAA"),
        ("READ FULL STATUS", reserve_in(ReserveInAction::ReadFullStatus), "AAAAA"),
        ("READ(10)", read(&[0x28, 0, 0, 0, 0, 1, 0, 0, 1, 0]), "ACAAC"),
        ("READ(16)", read(&[0x88, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0]), "ACAAC"),
        ("WRITE(10)", write(&[0x2a, 0, 0, 0, 0, 1, 0, 0, 1, 0]), "CCACC"),
        ("WRITE(16)", write(&[0x8a, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0]), "CCACC"),
        ("SYNCHRONIZE CACHE(10)", none(&[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0]), "CCACC"),
        ("START", none(&[0x1b, 0, 0, 0, 1, 0]), "AAAAA"),
        ("STOP", none(&[0x1b, 0, 0, 0, 0, 0]), "CCACC"),
        ("ALLOW MEDIUM REMOVAL", none(&[0x1e, 0, 0, 0, 0, 0]), "AAAAA"),
        ("PREVENT MEDIUM REMOVAL", none(&[0x1e, 0, 0, 0, 1, 0]), "CCACC"),
        ("vendor command", C0(), "CCACC"),
        ("READ CAPACITY(16)", ReadCapacity::LONG.command(), "AAAAA"),
        ("REPORT LUNS", ReportLuns { select: 0, allocation: 64 }.command(), "AAAAA"),
        (
            "REPORT TARGET PORT GROUPS",
            ReportPortGroups { extended: false, allocation: 256 }.command(),
            "AAAAA",
        ),
        ("SET TARGET PORT GROUPS", SetPortGroups { groups: vec![(1, 0), (2, 0)] }.command(), "CCACC"),
        ("REPORT SUPPORTED OPERATION CODES", read(&[0xa3, 0x0c, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0]), "AAAAA"),
        ("MODE SENSE(6)", ModeSense::new(ModeForm::Six, 0x3f, 255).command(), "ACAAC"),
        (
            "MODE SELECT(10)",
            ModeSelect { form: ModeForm::Ten, save: false, data: ModeData::of_pages(Vec::new()) }.command(),
            "CCACC",
        ),
        ("LOG SENSE", LogSense::new(0, 64).command(), "AAAAA"),
        ("LOG SELECT", LogSelect { reset: false, ..LogSelect::reset(0) }.command(), "CCACC"),
        // Registrations are in the way of the old kind, whoever sends it.
        ("RESERVE(6)", none(&[0x16, 0, 0, 0, 0, 0]), "CCCCC"),
        ("RELEASE(10)", none(&[0x57, 0, 0, 0, 0, 0, 0, 0, 0, 0]), "CCCCC"),
    ]
}

#[test]
fn each_type_lets_through_what_the_standard_says() {
    for kind in types() {
        let excludes_reads = matches!(kind.number(), 3 | 6 | 8);
        for (role, is_registered) in [("holder", true), ("registered", true), ("not registered", false)] {
            let mut bench = Bench::new("");
            let mut holder = bench.path("host1", "p0");
            let mut other = bench.path("host2", "p2");
            assert_eq!(status_of(&bench.run(&mut holder, register(0, 1))), 0);
            if is_registered {
                assert_eq!(status_of(&bench.run(&mut other, register(0, 2))), 0);
            }
            assert_eq!(status_of(&bench.run(&mut holder, reserve(1, kind))), 0);
            let path = if role == "holder" { &mut holder } else { &mut other };
            for (name, command, columns) in rows() {
                let column = match (kind.is_for_registrants(), role) {
                    (_, "holder") => None,
                    (false, _) => Some(usize::from(excludes_reads)),
                    (true, "registered") => Some(2),
                    (true, _) => Some(3 + usize::from(excludes_reads)),
                };
                let is_legacy = matches!(name, "RESERVE(6)" | "RELEASE(10)");
                let allowed = column.map_or(!is_legacy, |column| columns.as_bytes()[column] == b'A');
                let status = status_of(&bench.run(path, command));
                assert_eq!(status, if allowed { 0 } else { 0x18 }, "{name} by {role}, {}", kind.name());
            }
        }
    }
}

#[test]
fn a_reserve_of_the_old_kind_keeps_all_others_out_until_its_nexus_ends() {
    let mut bench = Bench::new("");
    let (mut path, mut other) = (bench.path("host1", "p0"), bench.path("host2", "p1"));
    let none = |cdb: &[u8]| raw(cdb, Transfer::None);
    assert_eq!(status_of(&bench.run(&mut path, none(&[0x16, 0, 0, 0, 0, 0]))), 0);
    for command in [TUR(), C0(), register(0, 1), reserve_in(ReserveInAction::ReadKeys)] {
        assert_eq!(status_of(&bench.run(&mut other, command)), 0x18);
    }
    assert_eq!(status_of(&bench.run(&mut other, inquiry(None))), 0);
    assert_eq!(status_of(&bench.run(&mut other, none(&[0x17, 0, 0, 0, 0, 0]))), 0, "GOOD, no effect");
    assert_eq!(bench.executions(0x17, None).effective, 0);
    assert_eq!(status_of(&bench.run(&mut other, TUR())), 0x18);
    assert_eq!(status_of(&bench.run(&mut path, C0())), 0);
    bench.system.apply(bench.now, &"path host1/p0/v0 end-nexus".parse().unwrap()).unwrap();
    assert_eq!(status_of(&bench.run(&mut other, C0())), 0);
}

#[test]
fn wrong_bytes_are_refused_with_a_pointer_and_change_nothing() {
    let mut bench = Bench::new("");
    let mut path = bench.path("host1", "p0");
    assert_eq!(status_of(&bench.run(&mut path, register(0, 1))), 0);
    let with = |action, flags| {
        let list = ParameterList::Basic { key: 1, action_key: 2, flags, initiators: Vec::new() };
        ReserveOut { list, ..ReserveOut::new(action, ReservationType::NONE, 0, 0) }.command()
    };
    let short = raw(&[0x5f, 0, 0, 0, 0, 0, 0, 0, 23, 0], Transfer::Out(vec![0; 23]));
    let cases = [
        (with(ReserveOutAction::Register, RegisterFlags::SPECIFY_INITIATORS), (5, 0x26, 0)),
        (with(ReserveOutAction::ReplaceLost, RegisterFlags::empty()), (5, 0x24, 0)),
        (reserve(1, ReservationType::Other(2)), (5, 0x24, 0)),
        (short, (5, 0x1a, 0)),
        (reserve_out(ReserveOutAction::Preempt, ReservationType::WriteExclusive, 1, 0), (5, 0x26, 0)),
        (raw(&[0x5e, 9, 0, 0, 0, 0, 0, 0, 9, 0], Transfer::In(9)), (5, 0x24, 0)),
        (raw(&[0xc5, 0, 0, 0, 0, 0], Transfer::None), (5, 0x20, 0)),
    ];
    for (command, sense) in cases {
        let text = format!("{command:?}");
        assert_eq!(sense_of(&bench.run(&mut path, command)), Some(sense), "{text}");
    }
    let status = bench.full_status(&mut path);
    assert_eq!((status.generation, status.registrants.len(), status.registrants[0].key), (1, 1, 1));
}

/// The reservation of the holder went with the first of its registrations, and the others, which were about to go, heard
/// of it.
#[test]
fn an_initiator_that_unregisters_at_all_ports_hears_nothing_of_its_own_reservation() {
    let mut bench = Bench::new("");
    let (mut holder, mut sibling) = (bench.path("host1", "p0"), bench.path("host1", "p1"));
    let all_ports = |new| Step::Register { new, ignores: true, all_ports: true };
    assert_eq!(status_of(&bench.run(&mut holder, command_of(all_ports(1), 0, &[]))), 0);
    let kind = ReservationType::WriteExclusiveRegistrantsOnly;
    assert_eq!(status_of(&bench.run(&mut holder, reserve(1, kind))), 0);
    assert_eq!(status_of(&bench.run(&mut holder, command_of(all_ports(0), 0, &[]))), 0);
    assert_eq!(bench.attentions(&sibling), 0);
    assert_eq!(bench.full_status(&mut sibling).registrants, []);
}

const NEXUSES: usize = 8;
/// Initiators of the nexuses 0 to 3 and 4 to 7, each through the ports p0 to p3.
const PORTS: usize = 4;

#[derive(Clone, Copy, Debug)]
enum Step {
    Register { new: u64, ignores: bool, all_ports: bool },
    Reserve(u8),
    Release(u8),
    Clear,
    Preempt { victim: u64, kind: u8, aborts: bool },
    Move { new: u64, to: usize, unregisters: bool },
    Relogin,
}

/// What the model knows: one key for each nexus (0: none), and who holds.
#[derive(Clone, Debug, Default)]
struct Model {
    keys: [u64; NEXUSES],
    /// Type and, for types that have one holder, the holder.
    held: Option<(u8, usize)>,
    generation: u32,
    news: [Vec<(u8, u8)>; NEXUSES],
}

/// What a command ends with: a status, or the sense of CHECK CONDITION.
type End = Result<(), Option<(u8, u8, u8)>>;

const CONFLICT: End = Err(None);

impl Model {
    fn holds(&self, who: usize) -> bool {
        self.held.is_some_and(|(kind, holder)| if kind >= 7 { self.keys[who] != 0 } else { holder == who })
    }

    fn tell(&mut self, actor: usize, ascq: u8, concerned: impl Fn(usize, u64) -> bool) {
        for who in 0..NEXUSES {
            if who != actor && concerned(who, self.keys[who]) {
                self.news[who].push((0x2a, ascq));
            }
        }
    }

    /// A reservation that nobody holds any more is released.
    fn settle(&mut self, actor: usize) {
        if let Some((kind, _)) = self.held
            && !(0..NEXUSES).any(|who| self.keys[who] != 0 && self.holds(who))
        {
            self.held = None;
            if kind >= 5 {
                self.tell(actor, 4, |_, key| key != 0);
            }
        }
    }

    fn step(&mut self, who: usize, key: u64, step: Step) -> End {
        if let Step::Register { new, ignores, all_ports } = step {
            if !ignores && self.keys[who] != key {
                return CONFLICT;
            }
            let concerned: Vec<usize> =
                (0..NEXUSES).filter(|n| *n == who || all_ports && n / PORTS == who / PORTS).collect();
            if new != 0 || concerned.iter().any(|n| self.keys[*n] != 0) {
                self.generation += 1;
                concerned.iter().for_each(|n| self.keys[*n] = new);
                self.settle(who);
            }
            return Ok(());
        }
        if self.keys[who] == 0 || self.keys[who] != key {
            return CONFLICT;
        }
        match step {
            Step::Register { .. } | Step::Relogin => Ok(()),
            Step::Reserve(kind) => match self.held {
                None => {
                    self.held = Some((kind, who));
                    Ok(())
                }
                Some((held, _)) if held == kind && self.holds(who) => Ok(()),
                Some(_) => CONFLICT,
            },
            Step::Release(kind) => {
                if self.holds(who) {
                    if self.held.is_some_and(|(held, _)| held != kind) {
                        return Err(Some((5, 0x26, 4)));
                    }
                    self.held = None;
                    if kind >= 5 {
                        self.tell(who, 4, |_, key| key != 0);
                    }
                }
                Ok(())
            }
            Step::Clear => {
                self.tell(who, 3, |_, key| key != 0);
                (self.keys, self.held) = ([0; NEXUSES], None);
                self.generation += 1;
                Ok(())
            }
            Step::Preempt { victim, kind, .. } => self.preempt(who, victim, kind),
            Step::Move { new, to, unregisters } => match self.held {
                Some((kind, holder)) if kind < 7 && holder == who => {
                    if new == 0 || to == who {
                        return Err(Some((5, 0x26, 0)));
                    }
                    self.keys[to] = new;
                    self.held = Some((kind, to));
                    if unregisters {
                        self.keys[who] = 0;
                    }
                    self.generation += 1;
                    Ok(())
                }
                _ => CONFLICT,
            },
        }
    }

    fn preempt(&mut self, who: usize, victim: u64, kind: u8) -> End {
        let of_all = self.held.is_some_and(|(held, _)| held >= 7);
        let takes = match self.held {
            Some(_) if of_all => victim == 0,
            Some((_, holder)) => self.keys[holder] == victim,
            None => false,
        };
        if victim == 0 && !of_all {
            return Err(Some((5, 0x26, 0)));
        }
        let is_victim = |n: usize, key: u64| {
            key != 0 && if takes { n != who && (of_all || key == victim) } else { key == victim }
        };
        let victims: Vec<usize> = (0..NEXUSES).filter(|n| is_victim(*n, self.keys[*n])).collect();
        if !takes && victims.is_empty() {
            return CONFLICT;
        }
        self.tell(who, 5, |n, _| victims.contains(&n));
        victims.iter().for_each(|n| self.keys[*n] = 0);
        if takes {
            let before = self.held.replace((kind, who));
            if before.is_some_and(|(held, _)| held != kind) {
                self.tell(who, 4, |_, key| key != 0);
            }
        }
        self.settle(who);
        self.generation += 1;
        Ok(())
    }
}

fn steps() -> impl Strategy<Value = Step> {
    let kind = || select(vec![1_u8, 3, 5, 6, 7, 8]);
    let key = || 0..4_u64;
    prop_oneof![
        4 => (key(), any::<bool>(), proptest::bool::weighted(0.2))
            .prop_map(|(new, ignores, all_ports)| Step::Register { new, ignores, all_ports }),
        4 => kind().prop_map(Step::Reserve),
        2 => kind().prop_map(Step::Release),
        1 => Just(Step::Clear),
        3 => (key(), kind(), any::<bool>())
            .prop_map(|(victim, kind, aborts)| Step::Preempt { victim, kind, aborts }),
        2 => (key(), 0..NEXUSES, any::<bool>())
            .prop_map(|(new, to, unregisters)| Step::Move { new, to, unregisters }),
        1 => Just(Step::Relogin),
    ]
}

fn command_of(step: Step, key: u64, names: &[(TransportId, u16)]) -> ControlCommand {
    let kind = |number| ReservationType::of(number);
    match step {
        Step::Register { new, ignores, all_ports } => {
            let action =
                if ignores { ReserveOutAction::RegisterAndIgnore } else { ReserveOutAction::Register };
            let flags = if all_ports { RegisterFlags::ALL_TARGET_PORTS } else { RegisterFlags::empty() };
            let list = ParameterList::Basic { key, action_key: new, flags, initiators: Vec::new() };
            ReserveOut { list, ..ReserveOut::new(action, ReservationType::NONE, 0, 0) }.command()
        }
        Step::Reserve(number) => reserve(key, kind(number)),
        Step::Release(number) => target_support::release(key, kind(number)),
        Step::Clear => reserve_out(ReserveOutAction::Clear, ReservationType::NONE, key, 0),
        Step::Preempt { victim, kind: number, aborts } => {
            let action = if aborts { ReserveOutAction::PreemptAndAbort } else { ReserveOutAction::Preempt };
            reserve_out(action, kind(number), key, victim)
        }
        Step::Move { new, to, unregisters } => {
            let (initiator, relative_port) = names[to].clone();
            let list = ParameterList::Move {
                key,
                action_key: new,
                unregister: unregisters,
                persist: false,
                relative_port,
                initiator,
            };
            let action = ReserveOutAction::RegisterAndMove;
            ReserveOut { list, ..ReserveOut::new(action, ReservationType::NONE, 0, 0) }.command()
        }
        Step::Relogin => TUR(),
    }
}

/// Eight paths, and what the target calls their nexuses.
fn open_all(bench: &mut Bench) -> (Vec<SimulatedPath>, Vec<(TransportId, u16)>) {
    let mut paths = Vec::new();
    for initiator in ["host1", "host2"] {
        for port in ["p0", "p1", "p2", "p3"] {
            paths.push(bench.path(initiator, port));
        }
    }
    for path in &mut paths {
        assert_eq!(status_of(&bench.run(path, register(0, 9))), 0);
    }
    let status = bench.full_status(&mut paths[0]);
    let names = (0..NEXUSES).map(|nexus| {
        let (initiator, port) =
            (["host1", "host2"][nexus / PORTS], u16::try_from(nexus % PORTS + 1).expect("small"));
        let is_it = |of: &TransportId| of.to_string().contains(initiator);
        let found = status.registrants.iter().find(|registrant| {
            registrant.relative_port == port && registrant.initiator.as_ref().is_some_and(is_it)
        });
        (found.and_then(|found| found.initiator.clone()).expect("all registered"), port)
    });
    let names = names.collect();
    for path in &mut paths {
        assert_eq!(status_of(&bench.run(path, register(9, 0))), 0);
    }
    (paths, names)
}

fn compare(bench: &mut Bench, paths: &mut [SimulatedPath], names: &[(TransportId, u16)], model: &mut Model) {
    for (path, news) in paths.iter_mut().zip(&mut model.news) {
        for (asc, ascq) in news.drain(..) {
            assert_eq!(sense_of(&bench.run(path, TUR())), Some((6, asc, ascq)));
        }
        assert_eq!(status_of(&bench.run(path, TUR())), 0, "no more news than that");
    }
    let status = bench.full_status(&mut paths[0]);
    assert_eq!(status.generation, model.generation);
    for (nexus, (initiator, port)) in names.iter().enumerate() {
        let found = status
            .registrants
            .iter()
            .find(|of| of.relative_port == *port && of.initiator.as_ref() == Some(initiator));
        assert_eq!(found.map_or(0, |found| found.key), model.keys[nexus], "nexus {nexus}");
        let holds = model.keys[nexus] != 0 && model.holds(nexus);
        assert_eq!(found.is_some_and(|found| found.is_holder), holds, "nexus {nexus}");
    }
    let keys = KeyList::parse(&data_of(&bench.run(&mut paths[1], reserve_in(ReserveInAction::ReadKeys))));
    let mut keys = keys.expect("whole").keys;
    keys.sort_unstable();
    let mut expected: Vec<u64> = model.keys.iter().copied().filter(|key| *key != 0).collect();
    expected.sort_unstable();
    assert_eq!(keys, expected);
    let report = data_of(&bench.run(&mut paths[2], reserve_in(ReserveInAction::ReadReservation)));
    let report = ReservationReport::parse(&report).expect("whole").reservation;
    let held = model.held.map(|(kind, holder)| (kind, if kind >= 7 { 0 } else { model.keys[holder] }));
    assert_eq!(report.map(|held| (held.kind.number(), held.key)), held);
}

proptest! {
    #[test]
    fn reservations_follow_a_small_model(
        // Most commands carry the right key: else nearly all of them conflict.
        steps in proptest::collection::vec((0..NEXUSES, proptest::option::weighted(0.15, 0..4_u64), steps()), 1..40),
    ) {
        let mut bench = Bench::new("");
        let (mut paths, names) = open_all(&mut bench);
        let generation = bench.full_status(&mut paths[0]).generation;
        let mut model = Model { generation, ..Model::default() };
        for (who, wrong_key, step) in steps {
            let key = wrong_key.unwrap_or(model.keys[who]);
            if matches!(step, Step::Relogin) {
                let action = format!("path {} end-nexus", paths[who].name()).parse().unwrap();
                bench.system.apply(bench.now, &action).unwrap();
                model.news[who] = vec![(0x29, 0)];
            } else {
                let reply = bench.run(&mut paths[who], command_of(step, key, &names));
                let end = match status_of(&reply) {
                    0 => Ok(()),
                    0x18 => CONFLICT,
                    _ => Err(sense_of(&reply)),
                };
                assert_eq!(end, model.step(who, key, step), "{step:?} by {who}");
            }
            compare(&mut bench, &mut paths, &names, &mut model);
        }
    }
}
