//! One way from nothing to a session that carries commands: connect, log in, ask the unit.
//!
//! Keeps true: no step waits; what takes too long is given up by whoever holds the [`Attempt`]. Not here: when to try.

use std::ffi::CString;
use std::net::SocketAddr;

use super::command::Sense;
use super::ffi::{Data, End, Ended, Login, Session};
use super::identity::{Isid, c_text};
use super::probe::{Probe, Progress, Unit};
use crate::block::buffer::Buffer;

/// All that a login needs.
#[derive(Debug)]
pub(super) struct Credentials {
    pub(super) initiator: CString,
    pub(super) isid: Isid,
    pub(super) target: CString,
    pub(super) lun: u8,
    /// User and password.
    pub(super) chap: Option<(CString, CString)>,
    /// Commands at once, without the one of the probe.
    pub(super) places: usize,
}

/// A session on its way.
#[derive(Debug)]
pub(super) struct Attempt {
    session: Session,
    probe: Probe,
    /// The place of the probe's commands.
    place: usize,
    has_begun: bool,
    /// What the probe consumed.
    attentions: Vec<Sense>,
}

/// A session that carries commands.
#[derive(Debug)]
pub(super) struct Established {
    pub(super) session: Session,
    pub(super) unit: Unit,
    pub(super) attentions: Vec<Sense>,
}

impl Attempt {
    /// Begins to connect.
    pub(super) fn begin(portal: SocketAddr, credentials: &Credentials) -> Result<Self, String> {
        let portal = c_text(&portal.to_string());
        let chap = credentials.chap.as_ref().map(|(user, password)| (user.as_c_str(), password.as_c_str()));
        let session = Session::begin(&Login {
            initiator: &credentials.initiator,
            isid: credentials.isid,
            target: &credentials.target,
            portal: &portal,
            lun: credentials.lun,
            chap,
            places: credentials.places + 1,
        })?;
        let (probe, place) = (Probe::new(), credentials.places);
        Ok(Self { session, probe, place, has_begun: false, attentions: Vec::new() })
    }

    /// The session, to be watched.
    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    /// Goes on as far as that is possible now: `Ok(Err(self))` where it is not over. An error is why it failed.
    pub(super) fn go_on(mut self) -> Result<Result<Established, Self>, String> {
        loop {
            self.session.serve()?;
            if !self.session.is_up() {
                return Ok(Err(self));
            }
            if !std::mem::replace(&mut self.has_begun, true) {
                self.ask()?;
                continue;
            }
            let Some(ended) = self.session.take_ended() else { return Ok(Err(self)) };
            match self.take(ended)? {
                Some(unit) => {
                    let Self { session, attentions, .. } = self;
                    return Ok(Ok(Established { session, unit, attentions }));
                }
                None => self.ask()?,
            }
        }
    }

    fn ask(&mut self) -> Result<(), String> {
        let (command, length) = self.probe.command();
        let data = if length == 0 { Data::None } else { Data::In(Buffer::zeroed(length)) };
        self.session.execute(self.place, command, data).map_err(|_| "libiscsi takes no command".to_owned())
    }

    fn take(&mut self, ended: Ended) -> Result<Option<Unit>, String> {
        let End::Answered(answer) = ended.end else { return Err("the connection ended".to_owned()) };
        let bytes = match &ended.data {
            Data::In(buffer) => &buffer[..buffer.len() - answer.missing],
            Data::None | Data::Out(_) => &[],
        };
        match self.probe.handle_answer(&answer, bytes)? {
            Progress::Next => {}
            Progress::Attention(sense) => self.attentions.push(sense),
            Progress::Done(unit) => return Ok(Some(unit)),
        }
        Ok(None)
    }
}
