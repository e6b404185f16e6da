//! What was measured, beside what was aimed at.
//!
//! Keeps true: a figure holds every run that it is made of; what is printed and what is judged come from these and nothing
//! else. Not here: the measuring.

use std::fmt;

/// What a goal asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
}

impl Target {
    /// Whether a value reaches it.
    #[must_use]
    pub fn is_met_by(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "≤ {most}"),
            Self::AtLeast(least) => write!(f, "≥ {least}"),
        }
    }
}

/// Which of the runs must reach the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Judged {
    /// Each: in virtual time nothing but the seed differs.
    EveryRun,
    /// The median: in real time other load comes and goes.
    Median,
}

/// What was measured for a goal, in one or more runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// The number of the goal.
    pub goal: u8,
    /// What was measured.
    pub what: String,
    /// Of what the values are; nothing for a ratio.
    pub unit: &'static str,
    /// What is aimed at.
    pub target: Target,
    /// Which of the runs must reach it.
    pub judged: Judged,
    /// One value for each run, in order of size.
    values: Vec<f64>,
}

impl Figure {
    /// A figure of runs in virtual time.
    #[must_use]
    pub fn of_seeds(goal: u8, what: &str, unit: &'static str, target: Target, values: Vec<f64>) -> Self {
        Self::new(goal, what, unit, target, values, Judged::EveryRun)
    }

    /// A figure of runs in real time.
    #[must_use]
    pub fn of_rounds(goal: u8, what: &str, unit: &'static str, target: Target, values: Vec<f64>) -> Self {
        Self::new(goal, what, unit, target, values, Judged::Median)
    }

    fn new(
        goal: u8,
        what: &str,
        unit: &'static str,
        target: Target,
        mut values: Vec<f64>,
        judged: Judged,
    ) -> Self {
        values.sort_by(f64::total_cmp);
        Self { goal, what: what.to_owned(), unit, target, judged, values }
    }

    /// The runs, in order of size.
    #[must_use]
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// The middle one.
    #[must_use]
    pub fn median(&self) -> f64 {
        self.values.get(self.values.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// The least.
    #[must_use]
    pub fn least(&self) -> f64 {
        self.values.first().copied().unwrap_or(f64::NAN)
    }

    /// The most.
    #[must_use]
    pub fn most(&self) -> f64 {
        self.values.last().copied().unwrap_or(f64::NAN)
    }

    /// The value that is judged.
    #[must_use]
    pub fn judged_value(&self) -> f64 {
        match (self.judged, self.target) {
            (Judged::Median, _) => self.median(),
            (Judged::EveryRun, Target::AtMost(_)) => self.most(),
            (Judged::EveryRun, Target::AtLeast(_)) => self.least(),
        }
    }

    /// Whether the goal is reached. Without any run it is not.
    #[must_use]
    pub fn is_met(&self) -> bool {
        self.target.is_met_by(self.judged_value())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_run_counts_in_virtual_time_and_the_median_in_real_time() {
        let values = vec![3.0, 1.0, 2.0];
        let seeds = |target| Figure::of_seeds(1, "x", "", target, values.clone());
        assert!(!seeds(Target::AtMost(2.5)).is_met() && seeds(Target::AtMost(3.0)).is_met());
        assert!(!seeds(Target::AtLeast(1.5)).is_met() && seeds(Target::AtLeast(1.0)).is_met());
        let rounds = Figure::of_rounds(1, "x", "", Target::AtMost(2.0), values.clone());
        assert_eq!((rounds.median(), rounds.least(), rounds.most()), (2.0, 1.0, 3.0));
        assert!(rounds.is_met());
        assert!(!Figure::of_seeds(1, "x", "", Target::AtMost(9.0), Vec::new()).is_met(), "nothing was seen");
    }
}
