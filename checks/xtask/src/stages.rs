//! Named stages, run in order, stopping at the first that fails.

use std::time::{Duration, Instant};

use anyhow::Result;

/// One stage: what it is called, what runs it alone, and what it does.
pub(crate) struct Stage<'a> {
    name: &'static str,
    rerun: String,
    work: Box<dyn FnOnce() -> Result<()> + 'a>,
}

impl<'a> Stage<'a> {
    /// A stage that `rerun` repeats on its own.
    pub(crate) fn new(
        name: &'static str,
        rerun: impl Into<String>,
        work: impl FnOnce() -> Result<()> + 'a,
    ) -> Self {
        Self {
            name,
            rerun: rerun.into(),
            work: Box::new(work),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Passed(Duration),
    Failed(Duration),
    NotRun,
}

/// Runs the stages and prints a summary; whether all passed.
pub(crate) fn run(stages: Vec<Stage<'_>>) -> bool {
    let begin = Instant::now();
    let mut table = Vec::new();
    let mut rerun = None;
    for stage in stages {
        if rerun.is_some() {
            table.push((stage.name, Outcome::NotRun));
            continue;
        }
        println!("\n==> {} (at {})", stage.name, seconds(begin.elapsed()));
        let stage_begin = Instant::now();
        let result = (stage.work)();
        let took = stage_begin.elapsed();
        match result {
            Ok(()) => table.push((stage.name, Outcome::Passed(took))),
            Err(error) => {
                println!("error: {error:#}");
                table.push((stage.name, Outcome::Failed(took)));
                rerun = Some(stage.rerun);
            }
        }
    }
    print!("\n{}", summary(&table, begin.elapsed()));
    if let Some(command) = &rerun {
        println!("run the failed stage again with:\n  {command}");
    }
    rerun.is_none()
}

fn summary(table: &[(&str, Outcome)], total: Duration) -> String {
    let width = table
        .iter()
        .map(|(name, _)| name.len())
        .max()
        .unwrap_or(0)
        .max("total".len());
    let mut text = String::new();
    for (name, outcome) in table {
        let (word, took) = match outcome {
            Outcome::Passed(took) => ("passed", seconds(*took)),
            Outcome::Failed(took) => ("FAILED", seconds(*took)),
            Outcome::NotRun => ("not run", String::new()),
        };
        text.push_str(format!("{name:width$}  {word:7}  {took:>8}").trim_end());
        text.push('\n');
    }
    text.push_str(&format!("{:width$}  {:7}  {:>8}\n", "total", "", seconds(total)));
    text
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use anyhow::bail;

    use super::*;

    #[test]
    fn the_first_failure_stops_the_rest() {
        let ran = RefCell::new(Vec::new());
        let passed = run(vec![
            Stage::new("one", "run one", || {
                ran.borrow_mut().push("one");
                Ok(())
            }),
            Stage::new("two", "run two", || {
                ran.borrow_mut().push("two");
                bail!("planted")
            }),
            Stage::new("three", "run three", || {
                ran.borrow_mut().push("three");
                Ok(())
            }),
        ]);
        assert!(!passed);
        assert_eq!(*ran.borrow(), ["one", "two"]);
    }

    #[test]
    fn the_summary_names_every_stage_even_those_not_run() {
        let table = [
            ("format", Outcome::Passed(Duration::from_millis(1234))),
            ("tests", Outcome::Failed(Duration::from_secs(60))),
            ("demo", Outcome::NotRun),
        ];
        assert_eq!(
            summary(&table, Duration::from_secs(62)),
            "format  passed      1.2 s\n\
             tests   FAILED     60.0 s\n\
             demo    not run\n\
             total              62.0 s\n"
        );
    }
}
