//! Whoever asks the processes of a host, or of all hosts of a lab.
//!
//! Keeps true: every lane of every host is asked, at the same time; which ones answered and which did not is said.

use std::path::Path;
use std::thread;

use super::{error_of, process};
use crate::args::Cli;
use crate::command::{CommandError, say};
use crate::config::HostConfig;
use crate::control_socket::{Answers, Reply, Silent, Wish, ask_all, ask_lane};
use crate::escape;
use crate::lab;

/// The hosts that are asked.
pub(super) struct Asker {
    hosts: Vec<HostConfig>,
    /// They are those of a lab, and so have to be told apart.
    is_lab: bool,
}

impl Asker {
    /// The hosts of a lab, or the one host of the configuration.
    pub(super) fn new(cli: &Cli, lab: Option<&Path>) -> Result<Self, CommandError> {
        let files = match lab {
            Some(dir) => lab::host_files(dir)?,
            None => vec![cli.config_file()?.to_owned()],
        };
        let hosts = files.iter().map(|file| HostConfig::load(file)).collect::<Result<_, _>>()?;
        Ok(Self { hosts, is_lab: lab.is_some() })
    }

    /// The hosts.
    pub(super) fn hosts(&self) -> &[HostConfig] {
        &self.hosts
    }

    /// What a host is called where it has to be told from others.
    pub(super) fn name_of(&self, host: &HostConfig) -> Option<String> {
        self.is_lab.then(|| host.host.to_string())
    }

    /// The host that an answer came from.
    pub(super) fn host_of(&self, reply: &Reply) -> &HostConfig {
        let is_it = |host: &&HostConfig| reply.host.is_none() || self.name_of(host) == reply.host;
        self.hosts.iter().find(is_it).unwrap_or(&self.hosts[0])
    }

    /// Asks all lanes. What a lane without an answer is like is said at once.
    pub(super) fn ask(&self, wish: &Wish) -> Result<Answers, CommandError> {
        let answers = self.ask_quietly(wish)?;
        for silent in &answers.silent {
            say(&format!("{}: {}", lane_name(silent.host.as_deref(), silent.lane), silent.why));
        }
        if answers.replies.is_empty() {
            return Err(match answers.silent.len() {
                0 => self.nobody(),
                lanes => CommandError::PathSilent { lanes },
            });
        }
        for host in self.without_process(&answers) {
            say(&format!("{}: no process is running", host.host));
        }
        Ok(answers)
    }

    fn nobody(&self) -> CommandError {
        let names: Vec<_> = self.hosts.iter().map(|host| host.host.to_string()).collect();
        CommandError::PathNobody { host: names.join(", "), file: escape::name(&self.hosts[0].file) }
    }

    /// The hosts of a lab that have no lane at all.
    pub(super) fn without_process<'a>(
        &'a self,
        answers: &'a Answers,
    ) -> impl Iterator<Item = &'a HostConfig> {
        self.hosts.iter().filter(move |host| {
            let name = self.name_of(host);
            answers.replies.iter().all(|reply| reply.host != name)
                && answers.silent.iter().all(|silent| silent.host != name)
        })
    }

    pub(super) fn ask_quietly(&self, wish: &Wish) -> Result<Answers, CommandError> {
        let asked: Vec<_> = thread::scope(|scope| {
            let ask = |host: &HostConfig| {
                let state = host.state.clone();
                scope.spawn(move || ask_all(&state, wish))
            };
            let threads: Vec<_> = self.hosts.iter().map(ask).collect();
            let failed = |_| Err(std::io::Error::other("the question failed"));
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(failed)).collect()
        });
        let mut all = Answers::default();
        for (host, answers) in self.hosts.iter().zip(asked) {
            let answers = answers.map_err(|source| {
                let path = escape::name(&host.state);
                CommandError::StateDir(crate::state_dir::StateDirError::Io { path, source })
            })?;
            let name = self.name_of(host);
            all.replies
                .extend(answers.replies.into_iter().map(|reply| Reply { host: name.clone(), ..reply }));
            all.silent
                .extend(answers.silent.into_iter().map(|silent| Silent { host: name.clone(), ..silent }));
        }
        Ok(all)
    }

    /// The lanes that answered what they were asked; if none did, that is the error.
    pub(super) fn answered(&self, wish: &Wish) -> Result<Answers, CommandError> {
        let mut answers = self.ask(wish)?;
        let (good, bad): (Vec<_>, Vec<_>) =
            answers.replies.drain(..).partition(|reply| reply.error.is_none());
        if let (true, Some(first)) = (good.is_empty(), bad.first()) {
            return Err(CommandError::PathRefused { why: error_of(first).to_owned() });
        }
        bad.iter().for_each(|reply| say(&format!("{}: {}", process(reply), error_of(reply))));
        answers.replies = good;
        Ok(answers)
    }

    /// Asks the one process that gave an answer before.
    pub(super) fn ask_again(&self, before: &Reply, wish: &Wish) -> Result<Reply, CommandError> {
        let refused = |why| CommandError::PathRefused { why };
        let reply = ask_lane(&self.host_of(before).state, before.lane, wish)
            .map_err(|why| refused(format!("{}: {why}", process(before))))?;
        match reply.error {
            Some(why) => Err(refused(why)),
            None => Ok(Reply { host: before.host.clone(), ..reply }),
        }
    }
}

/// A lane as users see it.
pub(super) fn lane_name(host: Option<&str>, lane: u16) -> String {
    host.map_or_else(|| format!("lane {lane}"), |host| format!("{host}, lane {lane}"))
}
