//! What came of a bench: a line for each budget, for people and for docs/benchmarks.md.

use std::fmt::Write as _;
use std::fs;

/// A bench that has run.
#[derive(Debug, Clone)]
pub struct Report {
    /// Its name.
    pub title: &'static str,
    /// One for each figure.
    pub lines: Vec<Line>,
    /// The single rounds, as rows under a header row.
    pub rounds: Vec<Vec<String>>,
    /// Machine and load.
    pub conditions: Conditions,
}

/// One figure.
#[derive(Debug, Clone)]
pub struct Line {
    /// What was measured.
    pub what: String,
    /// What came of it.
    pub measured: String,
    /// The budget, and whether it holds. None for a figure that is only told.
    pub budget: Option<(String, bool)>,
}

impl Line {
    /// A figure that is only told.
    pub fn told(what: impl Into<String>, measured: impl Into<String>) -> Self {
        Self { what: what.into(), measured: measured.into(), budget: None }
    }

    /// A figure that must be at least so much.
    pub fn at_least(what: impl Into<String>, value: f64, least: f64, unit: &str, note: &str) -> Self {
        Self::judged(what, value, unit, note, format!("≥ {}{unit}", number(least)), value >= least)
    }

    /// A figure that must be at most so much.
    pub fn at_most(what: impl Into<String>, value: f64, most: f64, unit: &str, note: &str) -> Self {
        Self::judged(what, value, unit, note, format!("≤ {}{unit}", number(most)), value <= most)
    }

    fn judged(
        what: impl Into<String>,
        value: f64,
        unit: &str,
        note: &str,
        budget: String,
        holds: bool,
    ) -> Self {
        let note = if note.is_empty() { String::new() } else { format!(" ({note})") };
        let measured = format!("{}{unit}{note}", number(value));
        Self { what: what.into(), measured, budget: Some((budget, holds)) }
    }

    fn verdict(&self) -> &'static str {
        match self.budget {
            None => "",
            Some((_, true)) => "PASS",
            Some((_, false)) => "OVER BUDGET",
        }
    }

    fn limit(&self) -> &str {
        self.budget.as_ref().map_or("", |(limit, _)| limit)
    }
}

/// Three significant places or so, without noise behind the point.
pub fn number(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude >= 100.0 || magnitude.fract() == 0.0 {
        format!("{value:.0}")
    } else if magnitude >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

impl Report {
    /// Whether every budget holds.
    pub fn holds(&self) -> bool {
        self.lines.iter().all(|line| line.budget.as_ref().is_none_or(|(_, holds)| *holds))
    }

    /// Prints it for people.
    #[allow(clippy::print_stdout, reason = "the result of a command-line tool")]
    pub fn print(&self) {
        let wide = |pick: fn(&Line) -> &str| {
            self.lines.iter().map(|line| pick(line).chars().count()).max().unwrap_or(0)
        };
        let (what, measured, limit) = (wide(|l| &l.what), wide(|l| &l.measured), wide(|l| l.limit()));
        println!("\n{}", self.title);
        for line in &self.lines {
            let text = format!(
                "  {:what$}  {:measured$}  {:limit$}  {}",
                line.what,
                line.measured,
                line.limit(),
                line.verdict()
            );
            println!("{}", text.trim_end());
        }
        println!("  {}", self.conditions.text());
    }

    /// The same as a section of a page.
    pub fn markdown(&self) -> String {
        let mut text = format!("{}\n\n", self.conditions.text());
        text.push_str("| what | measured | budget | |\n|---|---|---|---|\n");
        for line in &self.lines {
            let _infallible = writeln!(
                text,
                "| {} | {} | {} | {} |",
                line.what,
                line.measured,
                line.limit(),
                line.verdict()
            );
        }
        if let Some((header, rows)) = self.rounds.split_first() {
            let _infallible = write!(text, "\nThe rounds:\n\n| {} |\n", header.join(" | "));
            let _infallible = writeln!(text, "|{}", "---|".repeat(header.len()));
            for row in rows {
                let _infallible = writeln!(text, "| {} |", row.join(" | "));
            }
        }
        text
    }
}

/// The machine, and what else it did.
#[derive(Debug, Clone)]
pub struct Conditions {
    machine: String,
    load: Vec<f64>,
}

impl Conditions {
    /// As they are at the start.
    pub fn at_start() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).map(ToOwned::to_owned)?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let cpu = read("/proc/cpuinfo");
        let model = field(&cpu, "model name").unwrap_or_else(|| "unknown processor".to_owned());
        let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
        let memory = field(&read("/proc/meminfo"), "MemTotal")
            .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok())
            .map_or_else(String::new, |kib| format!(", {} GiB", (kib + (1 << 19)) >> 20));
        let kernel = read("/proc/sys/kernel/osrelease");
        let machine = format!("{cores} cores ({model}){memory}, Linux {}", kernel.trim());
        Self { machine, load: vec![load()] }
    }

    /// Notes the load again.
    pub fn note(&mut self) {
        self.load.push(load());
    }

    fn text(&self) -> String {
        let load: Vec<_> = self.load.iter().map(|load| format!("{load:.1}")).collect();
        format!("{}. Load average at the start and after each part: {}.", self.machine, load.join(", "))
    }
}

fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(lines: Vec<Line>) -> Report {
        let conditions = Conditions { machine: "m".into(), load: vec![0.5] };
        Report { title: "t", lines, rounds: vec![vec!["a".into()], vec!["1".into()]], conditions }
    }

    #[test]
    fn one_missed_budget_fails_the_whole() {
        let good = Line::at_least("speed", 0.85, 0.85, " ×", "");
        let told = Line::told("by the way", "nothing");
        let bad = Line::at_most("memory", 64.01, 64.0, " MiB", "10,000 objects");
        assert!(report(vec![good.clone(), told.clone()]).holds());
        let report = report(vec![good, told, bad]);
        assert!(!report.holds());
        let text = report.markdown();
        assert!(text.contains("| memory | 64.0 MiB (10,000 objects) | ≤ 64 MiB | OVER BUDGET |"), "{text}");
        assert!(text.contains("| speed | 0.85 × | ≥ 0.85 × | PASS |"), "{text}");
        assert!(text.contains("| by the way | nothing |  |  |"), "{text}");
    }

    #[test]
    fn numbers_have_three_places() {
        assert_eq!(["0.85", "12.3", "165", "0", "9"], [0.851, 12.34, 165.2, 0.0, 9.0].map(number)[..]);
    }
}
