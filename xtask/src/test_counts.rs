//! Counting what test programs print, so that many runs end in one line.

use std::ops::AddAssign;

/// How many tests ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TestCounts {
    pub passed: u64,
    pub failed: u64,
    pub skipped: u64,
}

impl AddAssign for TestCounts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl std::fmt::Display for TestCounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// What a run of tests said: the counts, and the names to look at.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct TestReport {
    pub counts: TestCounts,
    pub failures: Vec<String>,
    pub skips: Vec<String>,
    /// The end of what each failed test said.
    pub said: Vec<String>,
}

/// Lines of a failed test that are told: CI keeps nothing else of it.
const SAID_LINES_MAX: usize = 160;

impl TestReport {
    /// Reads the output of `cargo test … -- --show-output`. A test that skips passes and prints
    /// `skipped: <reason>`; an ignored one counts as skipped as well.
    pub fn of_cargo(output: &str) -> Self {
        let mut report = Self { said: said_by_failures(output), ..Self::default() };
        report.failures = report.said.iter().map(|said| first_word(said)).collect();
        for line in output.lines() {
            if let Some(result) = line.strip_prefix("test result: ") {
                report.counts.passed += number_before(result, " passed");
                report.counts.failed += number_before(result, " failed");
                report.counts.skipped += number_before(result, " ignored");
            } else if let Some(reason) = line.strip_prefix("skipped: ") {
                report.skips.push(reason.to_owned());
            }
        }
        let skipped = (report.skips.len() as u64).min(report.counts.passed);
        report.counts.passed -= skipped;
        report.counts.skipped += skipped;
        report
    }

    /// Reads the output of `go test -v`. Only whole tests count, not their parts.
    pub fn of_go(output: &str) -> Self {
        let mut report = Self::default();
        for line in output.lines() {
            if line.starts_with("--- PASS: ") {
                report.counts.passed += 1;
            } else if let Some(rest) = line.strip_prefix("--- FAIL: ") {
                report.counts.failed += 1;
                report.failures.push(first_word(rest));
            } else if let Some(rest) = line.strip_prefix("--- SKIP: ") {
                report.counts.skipped += 1;
                report.skips.push(first_word(rest));
            }
        }
        report
    }

    /// Reads the first line of the form `N passed, N failed, N skipped`, and the names below
    /// `new failures:`.
    pub fn of_summary(output: &str) -> Self {
        let mut report = Self::default();
        if let Some(line) = output.lines().find(|line| is_summary(line)) {
            report.counts.passed = number_before(line, " passed");
            report.counts.failed = number_before(line, " failed");
            report.counts.skipped = number_before(line, " skipped");
        }
        let below = output.lines().skip_while(|line| *line != "new failures:").skip(1);
        report
            .failures
            .extend(below.take_while(|line| line.starts_with("Test")).map(str::to_owned));
        report
    }

    /// A run that ended badly has failed at least once, even if it never came to a test.
    pub fn with_outcome(mut self, success: bool, what: &str) -> Self {
        if !success && self.counts.failed == 0 {
            self.counts.failed = 1;
            self.failures.push(what.to_owned());
        }
        self
    }

    /// One check that is no test program.
    pub fn of_check(result: Result<(), String>) -> Self {
        match result {
            Ok(()) => Self {
                counts: TestCounts { passed: 1, ..TestCounts::default() },
                ..Self::default()
            },
            Err(reason) => Self::default().with_outcome(false, &reason),
        }
    }

    /// One check that cannot be made here.
    pub fn of_skip(reason: String) -> Self {
        Self {
            counts: TestCounts { skipped: 1, ..TestCounts::default() },
            skips: vec![reason],
            ..Self::default()
        }
    }

    pub fn add(&mut self, other: Self) {
        self.counts += other.counts;
        self.failures.extend(other.failures);
        self.skips.extend(other.skips);
        self.said.extend(other.said);
    }
}

/// One text for each failed test: its name, and below it the last lines that it printed. The line
/// `test NAME ... FAILED` may be torn by what other processes print; this part is not.
fn said_by_failures(output: &str) -> Vec<String> {
    let mut told: Vec<(String, Vec<&str>)> = Vec::new();
    let mut is_within = false;
    for line in output.lines() {
        let heading = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----"));
        match (line, heading) {
            ("failures:", _) => is_within = true,
            ("successes:", _) => is_within = false,
            (_, Some(name)) if is_within => told.push((name.to_owned(), Vec::new())),
            _ if line.starts_with("test result: ") => is_within = false,
            _ if is_within => {
                if let Some((_, lines)) = told.last_mut() {
                    lines.push(line);
                }
            }
            _ => {}
        }
    }
    // The names are listed once more behind the last one's words, by a second `failures:`.
    let names: Vec<String> = told.iter().map(|(name, _)| format!("    {name}")).collect();
    let text = |(name, mut lines): (String, Vec<&str>)| {
        lines.retain(|line| !names.iter().any(|name| name == line));
        let from = lines.len().saturating_sub(SAID_LINES_MAX);
        format!("{name}\n{}", lines[from..].join("\n").trim_end())
    };
    told.into_iter().map(text).collect()
}

fn is_summary(line: &str) -> bool {
    line.starts_with(|c: char| c.is_ascii_digit())
        && [" passed, ", " failed, ", " skipped"].iter().all(|word| line.contains(word))
}

fn number_before(text: &str, word: &str) -> u64 {
    text.find(word)
        .and_then(|end| text[..end].rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok())
        .unwrap_or(0)
}

fn first_word(text: &str) -> String {
    text.split_whitespace().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CARGO: &str = "\
running 4 tests
test a::works ... ok
test a::cannot_run_here ... ok
test a::breaks ... a warning of another process
FAILED
test a::is_slow ... ignored

successes:

---- a::cannot_run_here stdout ----
skipped: needs root


successes:
    a::cannot_run_here

failures:

---- a::breaks stdout ----
the node does not become ready
thread 'a::breaks' panicked at a.rs:1:1:


failures:
    a::breaks

test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s
test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.01s
";

    #[test]
    fn cargo_tests_that_skip_are_not_counted_as_passed() {
        let report = TestReport::of_cargo(CARGO);
        assert_eq!(report.counts, TestCounts { passed: 13, failed: 1, skipped: 2 });
        assert_eq!(report.failures, ["a::breaks"]);
        let said =
            "a::breaks\nthe node does not become ready\nthread 'a::breaks' panicked at a.rs:1:1:";
        assert_eq!(report.said, [said]);
        assert_eq!(report.skips, ["needs root"]);
        assert_eq!(report.counts.to_string(), "13 passed, 1 failed, 2 skipped");
    }

    #[test]
    fn parts_of_go_tests_are_not_counted() {
        let report = TestReport::of_go(
            "=== RUN   TestA\n    --- PASS: TestA/one (0.00s)\n--- PASS: TestA (0.00s)\n\
             --- FAIL: TestB (0.00s)\n--- SKIP: TestC (0.00s)\nFAIL\n",
        );
        assert_eq!(report.counts, TestCounts { passed: 1, failed: 1, skipped: 1 });
        assert_eq!(report.failures, ["TestB"]);
    }

    #[test]
    fn a_summary_is_taken_as_it_stands() {
        let report = TestReport::of_summary(
            "running etcd3\n220 passed, 1 failed, 1 skipped\n\
             of which use a datastore: 126 passed, 1 failed, 0 skipped\n\
             new failures:\nTestWatch\nlogs are in a folder\n",
        );
        assert_eq!(report.counts, TestCounts { passed: 220, failed: 1, skipped: 1 });
        assert_eq!(report.failures, ["TestWatch"]);
    }

    #[test]
    fn a_run_that_came_to_no_test_has_failed() {
        let report = TestReport::of_cargo("error: could not compile\n").with_outcome(false, "unit");
        assert_eq!(report.counts, TestCounts { passed: 0, failed: 1, skipped: 0 });
        let fine = TestReport::of_cargo(CARGO).with_outcome(false, "unit");
        assert_eq!(fine.counts.failed, 1);
    }
}
