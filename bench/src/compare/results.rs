//! Everything measured in a comparison, and what follows from it.

use super::{
    Comparison, Mode,
    cases::{Against, Bound, Case, Figure, Target},
};
use crate::{report::Report, server_process::Kind};
use serde_json::{Value, json};

/// One run of one case against one server.
pub(crate) struct Run {
    pub(crate) case: &'static str,
    pub(crate) mode: Mode,
    pub(crate) server: Kind,
    pub(crate) round: usize,
    pub(crate) report: Report,
}

/// A figure that is not part of a load's report.
struct Measure {
    case: &'static str,
    mode: Mode,
    server: Kind,
    figure: Figure,
    value: f64,
}

/// Whether a target was reached.
pub(crate) struct Verdict {
    pub(crate) case: &'static Case,
    pub(crate) mode: Mode,
    pub(crate) target: Target,
    pub(crate) limit: f64,
    /// The ratio, or the figure itself if it is measured against nothing.
    pub(crate) value: f64,
    pub(crate) pass: bool,
}

/// See the module's description.
pub(crate) struct Results {
    pub(crate) versions: Vec<(Kind, String)>,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    cases: Vec<&'static Case>,
    modes: Vec<Mode>,
    runs: Vec<Run>,
    measures: Vec<Measure>,
    failures: Vec<String>,
}

impl Results {
    pub(crate) fn new(comparison: &Comparison, versions: Vec<(Kind, String)>) -> Self {
        Self {
            versions,
            rounds: comparison.rounds,
            seconds: comparison.duration.as_secs_f64(),
            cases: comparison.cases.clone(),
            modes: comparison.modes.clone(),
            runs: Vec::new(),
            measures: Vec::new(),
            failures: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, run: Run) {
        if let Some(error) = &run.report.first_error {
            self.fail(format!(
                "{} {} on {}, round {}: {} errors, first: {error}",
                run.case,
                run.mode.name(),
                run.server.name(),
                run.round + 1,
                run.report.errors
            ));
        }
        self.runs.push(run);
    }

    pub(crate) fn measure(
        &mut self,
        case: &'static str,
        mode: Mode,
        server: Kind,
        figure: Figure,
        value: f64,
    ) {
        self.measures.push(Measure {
            case,
            mode,
            server,
            figure,
            value,
        });
    }

    /// Notes what makes the comparison less than whole.
    pub(crate) fn fail(&mut self, what: String) {
        eprintln!("FAILED: {what}");
        self.failures.push(what);
    }

    pub(crate) fn failures(&self) -> &[String] {
        &self.failures
    }

    /// The values of one figure, by round.
    pub(crate) fn values(&self, case: &str, mode: Mode, server: Kind, figure: Figure) -> Vec<f64> {
        let runs = self
            .runs
            .iter()
            .filter(|run| (run.case, run.mode, run.server) == (case, mode, server))
            .filter_map(|run| figure.of(&run.report));
        let measures = self
            .measures
            .iter()
            .filter(|found| {
                (found.case, found.mode, found.server, found.figure) == (case, mode, server, figure)
            })
            .map(|found| found.value);
        runs.chain(measures).collect()
    }

    pub(crate) fn median(
        &self,
        case: &str,
        mode: Mode,
        server: Kind,
        figure: Figure,
    ) -> Option<f64> {
        median(self.values(case, mode, server, figure))
    }

    /// The median of Holdfast's ratios to `other`, each taken within one round.
    pub(crate) fn ratio(&self, case: &str, mode: Mode, other: Kind, figure: Figure) -> Option<f64> {
        let own = self.values(case, mode, Kind::Holdfast, figure);
        let others = self.values(case, mode, other, figure);
        // After a failed run rounds cannot be told apart any more.
        if own.len() != others.len() {
            return Some(median(own)? / median(others)?);
        }
        let pairs = own.iter().zip(&others).filter(|(_, other)| **other > 0.0);
        median(pairs.map(|(own, other)| own / other).collect())
    }

    /// A verdict for every target that the figures allow.
    pub(crate) fn verdicts(&self) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        for case in &self.cases {
            for mode in &self.modes {
                for target in case.targets {
                    verdicts.extend(self.verdict(case, *mode, *target));
                }
            }
        }
        verdicts
    }

    fn verdict(&self, case: &'static Case, mode: Mode, target: Target) -> Option<Verdict> {
        let limit = match mode {
            Mode::Plain => target.plain,
            Mode::Mtls => target.mtls,
        }?;
        let figure = target.figure;
        let own = |mode| self.median(case.name, mode, Kind::Holdfast, figure);
        let value = match target.against {
            Against::Etcd => self.ratio(case.name, mode, Kind::Etcd, figure)?,
            Against::Noop => self.ratio(case.name, mode, Kind::Noop, figure)?,
            Against::OwnPlain => own(mode)? / own(Mode::Plain)?,
            Against::Nothing => own(mode)?,
        };
        Some(Verdict {
            case,
            mode,
            target,
            limit,
            value,
            pass: match target.bound {
                Bound::AtLeast => value >= limit,
                Bound::AtMost => value <= limit,
            },
        })
    }

    /// Whether nothing failed and every target was reached.
    pub(crate) fn good(&self) -> bool {
        self.failures.is_empty() && self.verdicts().iter().all(|verdict| verdict.pass)
    }

    /// All of it as JSON.
    pub(crate) fn document(&self) -> Value {
        let versions: serde_json::Map<_, _> = self
            .versions
            .iter()
            .map(|(kind, version)| (kind.name().to_owned(), json!(version)))
            .collect();
        let medians: Vec<_> = self
            .cases
            .iter()
            .flat_map(|case| self.modes.iter().map(move |mode| (case, *mode)))
            .flat_map(|(case, mode)| case.shown.iter().map(move |figure| (case, mode, *figure)))
            .map(|(case, mode, figure)| {
                let of = |kind| self.median(case.name, mode, kind, figure);
                json!({
                    "case": case.name,
                    "mode": mode.name(),
                    "figure": figure.name(),
                    "etcd": of(Kind::Etcd),
                    "holdfast": of(Kind::Holdfast),
                    "noop": of(Kind::Noop),
                    "holdfast_to_etcd": self.ratio(case.name, mode, Kind::Etcd, figure),
                    "holdfast_to_noop": self.ratio(case.name, mode, Kind::Noop, figure),
                })
            })
            .collect();
        let verdicts: Vec<_> = self
            .verdicts()
            .iter()
            .map(|verdict| {
                json!({
                    "case": verdict.case.name,
                    "mode": verdict.mode.name(),
                    "figure": verdict.target.figure.name(),
                    "against": against(verdict.target.against),
                    "bound": bound(verdict.target.bound),
                    "limit": verdict.limit,
                    "value": verdict.value,
                    "pass": verdict.pass,
                })
            })
            .collect();
        let runs: Vec<_> = self
            .runs
            .iter()
            .map(|run| {
                json!({
                    "case": run.case,
                    "mode": run.mode.name(),
                    "server": run.server.name(),
                    "round": run.round + 1,
                    "report": run.report,
                })
            })
            .collect();
        let measures: Vec<_> = self
            .measures
            .iter()
            .map(|found| {
                json!({
                    "case": found.case,
                    "mode": found.mode.name(),
                    "server": found.server.name(),
                    "figure": found.figure.name(),
                    "value": found.value,
                })
            })
            .collect();
        json!({
            "versions": versions,
            "processors": std::thread::available_parallelism().map_or(0, usize::from),
            "rounds": self.rounds,
            "seconds": self.seconds,
            "medians": medians,
            "verdicts": verdicts,
            "failures": self.failures,
            "measures": measures,
            "runs": runs,
        })
    }
}

pub(crate) fn against(against: Against) -> &'static str {
    match against {
        Against::Etcd => "etcd",
        Against::Noop => "do-nothing server",
        Against::OwnPlain => "own plain figure",
        Against::Nothing => "",
    }
}

pub(crate) fn bound(bound: Bound) -> &'static str {
    match bound {
        Bound::AtLeast => "≥",
        Bound::AtMost => "≤",
    }
}

/// The middle, or the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *values.get(values.len() / 2 - 1)?;
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    fn results() -> Results {
        Results {
            versions: Vec::new(),
            rounds: 3,
            seconds: 1.0,
            cases: Case::named("million-keys").into_iter().collect(),
            modes: vec![Mode::Plain],
            runs: Vec::new(),
            measures: Vec::new(),
            failures: Vec::new(),
        }
    }

    #[test]
    fn ratios_are_taken_within_rounds() {
        let mut results = results();
        // The machine is three times slower in the second round, for both.
        for (etcd, own) in [(100.0, 40.0), (300.0, 120.0), (110.0, 44.0)] {
            for (kind, value) in [(Kind::Etcd, etcd), (Kind::Holdfast, own)] {
                results.measure("million-keys", Mode::Plain, kind, Figure::Restart, value);
            }
        }
        let ratio = results.ratio("million-keys", Mode::Plain, Kind::Etcd, Figure::Restart);
        assert_eq!(ratio, Some(0.4));
        let verdicts = results.verdicts();
        assert_eq!(verdicts.len(), 1);
        assert!(verdicts[0].pass && results.good());
        results.fail("a server did not start".to_owned());
        assert!(!results.good());
    }
}
