//! What came of the rounds: rows for each contestant, and ratios against diskwire.
//!
//! Keeps true: a ratio is made of two runs of the same round. Pure. Not here: the copying (`arena`).

use system_tests::multipath_goals::figure::Target;

use super::super::report::Row;
use super::contestant::Contestant;

/// A mebibyte.
const MIB: f64 = 1_048_576.0;
/// The most memory of a transfer, in MiB.
const MEMORY_MIB_MAX: f64 = 96.0;

/// One copy.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Run {
    /// From the start of the copying program to its end.
    pub(super) seconds: f64,
    /// The same, and until everything was on the disk, if that was waited for.
    pub(super) synced_seconds: Option<f64>,
    /// CPU time of all processes of both sides.
    pub(super) cpu_seconds: f64,
    /// What is known of diskwire alone.
    pub(super) ours: Option<Ours>,
}

/// What is known of a copy by diskwire.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ours {
    /// The most that `cp` had in memory.
    pub(super) initiator_memory_bytes: u64,
    /// The most that `serve` had.
    pub(super) connector_memory_bytes: u64,
    /// How often threads of both gave up the CPU.
    pub(super) switches: u64,
    /// Requests of `serve` to the devices.
    pub(super) connector_requests: u64,
}

/// What is aimed at, of one contestant against diskwire.
#[derive(Clone, Copy, Debug)]
pub(super) struct Goal {
    /// Which.
    pub(super) contestant: Contestant,
    /// How often as long it takes, at least.
    pub(super) time: Option<f64>,
    /// How often as much CPU time it takes, at least.
    pub(super) cpu: Option<f64>,
}

/// All contestants, diskwire first, with their runs.
pub(super) struct Standing<'a> {
    /// Who.
    pub(super) contestants: &'a [Contestant],
    /// Of each, round by round.
    pub(super) runs: &'a [Vec<Run>],
    /// What is copied, in bytes.
    pub(super) bytes: u64,
    /// What is aimed at.
    pub(super) goals: &'a [Goal],
}

impl Standing<'_> {
    /// Times, rates and CPU times of each contestant.
    pub(super) fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        let mib = self.bytes as f64 / MIB;
        for (contestant, runs) in self.contestants.iter().zip(self.runs) {
            let of = |value: &dyn Fn(&Run) -> f64| runs.iter().map(value).collect::<Vec<_>>();
            rows.push(Row::new(format!("{contestant}, time"), "s", of(&|run| run.seconds)));
            rows.push(Row::new(format!("{contestant}, rate"), "MiB/s", of(&|run| mib / run.seconds)));
            let synced: Vec<f64> = runs.iter().filter_map(|run| run.synced_seconds).collect();
            if !synced.is_empty() {
                rows.push(Row::new(format!("{contestant} + sync, time"), "s", synced.clone()));
                let rates = synced.iter().map(|seconds| mib / seconds).collect();
                rows.push(Row::new(format!("{contestant} + sync, rate"), "MiB/s", rates));
            }
            rows.push(Row::new(format!("{contestant}, CPU"), "CPU s", of(&|run| run.cpu_seconds)));
            let per_gib = of(&|run| run.cpu_seconds * 1024.0 / mib);
            rows.push(Row::new(format!("{contestant}, CPU"), "s/GiB", per_gib));
        }
        rows
    }

    /// Of each other contestant, how often as much it took.
    pub(super) fn ratios(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for (contestant, runs) in self.contestants.iter().zip(self.runs).skip(1) {
            let goal = self.goals.iter().find(|goal| goal.contestant == *contestant);
            let times = self.ratio(runs, &|run| Some(run.seconds), &|run| run.seconds);
            rows.push(with_goal(ratio(*contestant, "time", times), goal.and_then(|goal| goal.time)));
            let synced = self.ratio(runs, &|run| run.synced_seconds, &|run| run.seconds);
            if !synced.is_empty() {
                rows.push(Row::new(format!("{contestant} + sync, time ratio"), "", synced));
            }
            let cpu = self.ratio(runs, &|run| Some(run.cpu_seconds), &|run| run.cpu_seconds);
            rows.push(with_goal(ratio(*contestant, "CPU", cpu), goal.and_then(|goal| goal.cpu)));
        }
        rows
    }

    /// Round by round.
    fn ratio(
        &self,
        runs: &[Run],
        above: &dyn Fn(&Run) -> Option<f64>,
        below: &dyn Fn(&Run) -> f64,
    ) -> Vec<f64> {
        let diskwire = &self.runs[0];
        runs.iter()
            .zip(diskwire)
            .filter_map(|(run, ours)| above(run).map(|value| value / below(ours)))
            .collect()
    }

    /// Memory and context switches of diskwire.
    pub(super) fn ours(&self) -> Vec<Row> {
        let ours: Vec<Ours> = self.runs[0].iter().filter_map(|run| run.ours).collect();
        let of = |value: &dyn Fn(&Ours) -> f64| ours.iter().map(value).collect::<Vec<_>>();
        let memory = Target::AtMost(MEMORY_MIB_MAX);
        let initiator = of(&|run| run.initiator_memory_bytes as f64 / MIB);
        let connector = of(&|run| run.connector_memory_bytes as f64 / MIB);
        let switches = of(&|run| run.switches as f64 * MIB / self.bytes as f64);
        vec![
            Row::new("cp, peak memory", "MiB", initiator).with_goal(memory),
            Row::new("serve, peak memory", "MiB", connector).with_goal(memory),
            Row::new("diskwire, context switches", "/MiB", switches),
        ]
    }

    /// Requests of `serve` to the devices for each of so many things.
    pub(super) fn requests_per(&self, count: f64, what: &str) -> Row {
        let ours = self.runs[0].iter().filter_map(|run| run.ours);
        let requests = ours.map(|run| run.connector_requests as f64 / count).collect();
        Row::new(format!("serve, I/Os per {what}"), "", requests)
    }
}

fn ratio(contestant: Contestant, what: &str, values: Vec<f64>) -> Row {
    Row::new(format!("{contestant}, {what} ratio"), "", values)
}

fn with_goal(row: Row, goal: Option<f64>) -> Row {
    match goal {
        Some(goal) => row.with_goal(Target::AtLeast(goal)),
        None => row,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(seconds: f64, cpu_seconds: f64) -> Run {
        Run { seconds, cpu_seconds, ..Run::default() }
    }

    /// The machine becomes three times as slow from round to round, and ratios do not.
    fn runs() -> Vec<Vec<Run>> {
        let slow = |run: Run| Run { synced_seconds: Some(run.seconds * 2.0), ..run };
        vec![
            vec![run(1.0, 2.0), run(3.0, 6.0), run(9.0, 18.0)],
            vec![slow(run(4.0, 4.0)), slow(run(12.0, 12.0)), slow(run(36.0, 36.0))],
        ]
    }

    #[test]
    fn ratios_are_those_of_one_round() {
        let goals = [Goal { contestant: Contestant::Scp, time: Some(4.0), cpu: Some(2.5) }];
        let standing = Standing {
            contestants: &[Contestant::Diskwire, Contestant::Scp],
            runs: &runs(),
            bytes: 1 << 30,
            goals: &goals,
        };
        let ratios = standing.ratios();
        let expected = [
            Row::new("scp, time ratio", "", vec![4.0; 3]).with_goal(Target::AtLeast(4.0)),
            Row::new("scp + sync, time ratio", "", vec![8.0; 3]),
            Row::new("scp, CPU ratio", "", vec![2.0; 3]).with_goal(Target::AtLeast(2.5)),
        ];
        assert_eq!(ratios, expected);
        assert_eq!(ratios.iter().map(Row::is_met).collect::<Vec<_>>(), [Some(true), None, Some(false)]);
    }

    #[test]
    fn rates_are_made_of_bytes_and_times() {
        let standing = Standing {
            contestants: &[Contestant::Diskwire, Contestant::Scp],
            runs: &runs(),
            bytes: 2 << 30,
            goals: &[],
        };
        let rows = standing.rows();
        assert_eq!(rows.len(), 4 + 6);
        assert_eq!(rows[1], Row::new("diskwire, rate", "MiB/s", vec![2048.0, 2048.0 / 3.0, 2048.0 / 9.0]));
        assert_eq!(rows[3], Row::new("diskwire, CPU", "s/GiB", vec![1.0, 3.0, 9.0]));
    }

    #[test]
    fn memory_is_judged_and_switches_are_per_mebibyte() {
        let ours = Ours {
            initiator_memory_bytes: 97 << 20,
            connector_memory_bytes: 96 << 20,
            switches: 512,
            connector_requests: 300,
        };
        let runs = [vec![Run { ours: Some(ours), ..run(1.0, 1.0) }]];
        let standing =
            Standing { contestants: &[Contestant::Diskwire], runs: &runs, bytes: 256 << 20, goals: &[] };
        let rows = standing.ours();
        assert_eq!(rows[0].is_met(), Some(false));
        assert_eq!(rows[1].is_met(), Some(true));
        assert_eq!(rows[2].median(), 2.0);
        assert_eq!(standing.requests_per(100.0, "file").median(), 3.0);
    }
}
