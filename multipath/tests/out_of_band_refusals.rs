//! A kernel that does not let commands out: nothing was sent, and one line says what would help.

use std::time::Duration;

use multipath::out_of_band::reservations::Reservations;
use multipath::out_of_band::router::{Action, Router};
use multipath::out_of_band::select::PathView;
use multipath::out_of_band::{
    Certainty, CommandRequest, CommandTable, Origin, ReservationOperation, ReservationResult, RouterConfig,
};
use multipath::{PathSet, PathState};
use nix::errno::Errno;
use storage_mapping::control_port::{ControlCompletion, NexusId};
use storage_mapping::scsi::reservations::{ReservationType, ReserveOut, ReserveOutAction};
use storage_mapping::{CopyFate, Effect, Instant, IoError, PathIndex};

const PATHS: usize = 2;
const PATIENCE: Duration = Duration::from_secs(1);

fn router() -> Router {
    let mut router = Router::new(PATHS, CommandTable::default(), RouterConfig::default());
    let view = |path: usize| PathView {
        path: PathIndex(path),
        state: PathState::Active,
        is_suspect: false,
        priority: 0,
        nexus: Some(NexusId {
            initiator: format!("host {path}"),
            target_port: format!("port {path}"),
            generation: 1,
        }),
        latency: None,
        has_attention: false,
    };
    router.set_paths((0..PATHS).map(view).collect());
    router
}

/// Every command that is sent fails as the kernel refuses it.
fn refuse(router: &mut Router) {
    while let Some(action) = router.poll_action(Instant::ZERO) {
        let Action::Send { tag, .. } = action else { panic!("{action:?}") };
        let outcome = Err(IoError::errno(Errno::EPERM as i32));
        let done = ControlCompletion { tag, outcome, effect: Effect::None, copy: CopyFate::Dead };
        router.handle_completion(Instant::ZERO, &done);
    }
}

#[test]
fn a_command_says_what_would_let_it_out() {
    let mut router = router();
    let register = ReserveOut::new(ReserveOutAction::Register, ReservationType::NONE, 0, 0xabc).command();
    router.submit(Instant::ZERO, CommandRequest::new(register, None, PATIENCE));
    refuse(&mut router);
    let outcome = router.poll_outcome(Origin::Caller).expect("it ends");
    assert!(outcome.conclusions.iter().all(|one| one.certainty == Certainty::NotExecuted), "{outcome:?}");
    let remedy = outcome.record.remedy().expect("a remedy");
    assert!(remedy.contains("CAP_SYS_RAWIO"), "{remedy}");
    assert_eq!(outcome.record.to_string().matches(&remedy).count(), 1, "{}", outcome.record);
}

#[test]
fn an_operation_over_all_paths_says_it_too() {
    let (mut router, mut reservations) = (router(), Reservations::default());
    let all: PathSet = (0..PATHS).map(PathIndex).collect();
    let register = ReservationOperation::Register { base: 0xabc };
    reservations.start(Instant::ZERO, &mut router, register, (all, all), PATIENCE);
    refuse(&mut router);
    while let Some(outcome) = router.poll_outcome(Origin::Part) {
        assert!(reservations.handle_outcome(Instant::ZERO, &mut router, &outcome));
        refuse(&mut router);
    }
    let outcome = reservations.poll().expect("it ends");
    assert_eq!(outcome.result, ReservationResult::NoPath, "{outcome:?}");
    assert!(outcome.remedy.is_some_and(|remedy| remedy.contains("CAP_SYS_RAWIO")));
}
