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

/// How much is copied.
#[derive(Clone, Copy, Debug)]
pub(super) enum Amount {
    /// One file of so many bytes.
    Bytes(u64),
    /// So many files.
    Files(u32),
}

impl Amount {
    /// Counted in the unit that rates have.
    fn count(self) -> f64 {
        match self {
            Self::Bytes(bytes) => bytes as f64 / MIB,
            Self::Files(files) => f64::from(files),
        }
    }

    /// The unit of rates.
    fn per_second(self) -> &'static str {
        match self {
            Self::Bytes(_) => "MiB/s",
            Self::Files(_) => "files/s",
        }
    }

    /// CPU time for what is carried, with its unit.
    fn cost(self, cpu_seconds: f64) -> f64 {
        match self {
            Self::Bytes(_) => cpu_seconds * 1024.0 / self.count(),
            Self::Files(_) => cpu_seconds * 1000.0 / self.count(),
        }
    }

    fn cost_unit(self) -> &'static str {
        match self {
            Self::Bytes(_) => "s/GiB",
            Self::Files(_) => "ms/file",
        }
    }

    /// The unit of what is counted for each.
    fn each(self) -> &'static str {
        match self {
            Self::Bytes(_) => "/MiB",
            Self::Files(_) => "/file",
        }
    }
}

/// All contestants, diskwire first, with their runs.
pub(super) struct Standing<'a> {
    /// Who.
    pub(super) contestants: &'a [Contestant],
    /// Of each, round by round.
    pub(super) runs: &'a [Vec<Run>],
    /// What each copies.
    pub(super) amount: Amount,
    /// What is aimed at.
    pub(super) goals: &'a [Goal],
}

impl Standing<'_> {
    /// Times, rates and CPU times of each contestant.
    pub(super) fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        let (amount, count) = (self.amount, self.amount.count());
        for (contestant, runs) in self.contestants.iter().zip(self.runs) {
            let of = |value: &dyn Fn(&Run) -> f64| runs.iter().map(value).collect::<Vec<_>>();
            rows.push(Row::new(format!("{contestant}, time"), "s", of(&|run| run.seconds)));
            let rates = of(&|run| count / run.seconds);
            rows.push(Row::new(format!("{contestant}, rate"), amount.per_second(), rates));
            let synced: Vec<f64> = runs.iter().filter_map(|run| run.synced_seconds).collect();
            if !synced.is_empty() {
                rows.push(Row::new(format!("{contestant} + sync, time"), "s", synced.clone()));
                let rates = synced.iter().map(|seconds| count / seconds).collect();
                rows.push(Row::new(format!("{contestant} + sync, rate"), amount.per_second(), rates));
            }
            rows.push(Row::new(format!("{contestant}, CPU"), "CPU s", of(&|run| run.cpu_seconds)));
            let costs = of(&|run| amount.cost(run.cpu_seconds));
            rows.push(Row::new(format!("{contestant}, CPU"), amount.cost_unit(), costs));
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

    /// Memory, context switches and I/Os of diskwire.
    pub(super) fn ours(&self) -> Vec<Row> {
        let ours: Vec<Ours> = self.runs[0].iter().filter_map(|run| run.ours).collect();
        let of = |value: &dyn Fn(&Ours) -> f64| ours.iter().map(value).collect::<Vec<_>>();
        let memory = Target::AtMost(MEMORY_MIB_MAX);
        let initiator = of(&|run| run.initiator_memory_bytes as f64 / MIB);
        let connector = of(&|run| run.connector_memory_bytes as f64 / MIB);
        let (count, each) = (self.amount.count(), self.amount.each());
        let switches = of(&|run| run.switches as f64 / count);
        let requests = of(&|run| run.connector_requests as f64 / count);
        vec![
            Row::new("cp, peak memory", "MiB", initiator).with_goal(memory),
            Row::new("serve, peak memory", "MiB", connector).with_goal(memory),
            Row::new("diskwire, context switches", each, switches),
            Row::new("serve, I/Os", each, requests),
        ]
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
            amount: Amount::Bytes(1 << 30),
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
            amount: Amount::Bytes(2 << 30),
            goals: &[],
        };
        let rows = standing.rows();
        assert_eq!(rows.len(), 4 + 6);
        assert_eq!(rows[1], Row::new("diskwire, rate", "MiB/s", vec![2048.0, 2048.0 / 3.0, 2048.0 / 9.0]));
        assert_eq!(rows[3], Row::new("diskwire, CPU", "s/GiB", vec![1.0, 3.0, 9.0]));
    }

    #[test]
    fn memory_is_judged_and_what_is_counted_is_counted_for_each() {
        let ours = Ours {
            initiator_memory_bytes: 97 << 20,
            connector_memory_bytes: 96 << 20,
            switches: 512,
            connector_requests: 300,
        };
        let runs = [vec![Run { ours: Some(ours), ..run(1.0, 1.0) }]];
        let rows = |amount| {
            Standing { contestants: &[Contestant::Diskwire], runs: &runs, amount, goals: &[] }.ours()
        };
        let of_bytes = rows(Amount::Bytes(256 << 20));
        assert_eq!([0, 1].map(|row| of_bytes[row].is_met()), [Some(false), Some(true)]);
        assert_eq!(of_bytes[2], Row::new("diskwire, context switches", "/MiB", vec![2.0]));
        assert_eq!(rows(Amount::Files(100))[3], Row::new("serve, I/Os", "/file", vec![3.0]));
        assert_eq!(Amount::Files(100).cost(1.0), 10.0);
    }
}
