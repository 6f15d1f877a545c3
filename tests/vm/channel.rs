//! The way into the machine: commands over its serial port, answers back.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// More than this is not an answer that a test reads.
const OUTPUT_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// How long a machine that starts is given for one answer before it is asked again.
const HELLO_PAUSE: Duration = Duration::from_secs(5);

/// What a command in the machine came to.
#[derive(Clone, Debug)]
pub struct Answer {
    pub code: i32,
    /// Both streams, as they came.
    pub output: String,
}

/// One end of the serial port; `image/machine-agent` is the other.
///
/// ```text
/// test    run 7 6\n uptime            ->
/// machine ran 7 0 62\n 02:11:06 up …  <-
/// ```
///
/// Commands are answered in order. An id that is not the last one asked belongs to a question
/// that was given up (a machine that was starting), and its answer is passed over.
#[derive(Debug)]
pub struct Channel {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
    last_id: u64,
    /// The part of a line that had come when time was over.
    begun: Vec<u8>,
}

impl Channel {
    pub fn open(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("cannot reach {}", socket.display()))?;
        let writer = stream.try_clone()?;
        Ok(Self { reader: BufReader::new(stream), writer, last_id: 0, begun: Vec::new() })
    }

    /// Runs a piece of shell in the machine to its end.
    pub fn run(&mut self, script: &str, bound: Duration) -> Result<Answer> {
        self.send(script)?;
        self.answer(bound)
            .with_context(|| format!("no answer within {} s to `{script}`", bound.as_secs()))
    }

    /// Asks until somebody answers: what was sent while the machine went down is lost.
    pub fn hello(&mut self, script: &str, bound: Duration) -> Result<Answer> {
        let start = Instant::now();
        loop {
            self.send(script)?;
            match self.answer(HELLO_PAUSE) {
                Ok(answer) => return Ok(answer),
                Err(error) if start.elapsed() > bound => {
                    return Err(error.context(format!(
                        "the machine's agent says nothing within {} s",
                        bound.as_secs()
                    )));
                }
                Err(error) if is_timeout(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Asks without waiting; the answer, if one comes, is passed over by the next question.
    pub fn send(&mut self, script: &str) -> Result<()> {
        self.last_id += 1;
        // The first line break ends whatever a machine that went down left half read.
        let frame = format!("\nrun {} {}\n{script}", self.last_id, script.len());
        self.writer.write_all(frame.as_bytes()).context("cannot write to the machine")
    }

    fn answer(&mut self, bound: Duration) -> Result<Answer> {
        let until = Instant::now() + bound;
        loop {
            let line = self.line(until)?;
            let Some((id, code, length)) = parse(&line) else { continue };
            ensure!(length <= OUTPUT_BYTES_MAX, "an answer of {length} bytes");
            let mut output = vec![0; usize::try_from(length)?];
            self.wait_until(until)?;
            self.reader.read_exact(&mut output)?;
            if id == self.last_id {
                return Ok(Answer { code, output: String::from_utf8_lossy(&output).into_owned() });
            }
        }
    }

    fn line(&mut self, until: Instant) -> Result<String> {
        self.wait_until(until)?;
        let count = self.reader.read_until(b'\n', &mut self.begun)?;
        if count == 0 {
            bail!("the machine has gone");
        }
        Ok(String::from_utf8_lossy(&std::mem::take(&mut self.begun)).trim_end().to_owned())
    }

    fn wait_until(&self, until: Instant) -> Result<()> {
        let rest = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        Ok(self.writer.set_read_timeout(Some(rest))?)
    }
}

/// `ran ID EXIT LENGTH`, or nothing for a line that is not one.
fn parse(line: &str) -> Option<(u64, i32, u64)> {
    let mut words = line.split(' ');
    if words.next()? != "ran" {
        return None;
    }
    let found =
        (words.next()?.parse().ok()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    words.next().is_none().then_some(found)
}

fn is_timeout(error: &anyhow::Error) -> bool {
    use std::io::ErrorKind::{TimedOut, WouldBlock};
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    matches!(kind, Some(TimedOut | WouldBlock))
}

#[test]
fn a_line_that_is_no_answer_is_passed_over() {
    assert_eq!(parse("ran 7 0 62"), Some((7, 0, 62)));
    assert_eq!(parse("ran 7 0"), None);
    assert_eq!(parse("ran 7 0 62 1"), None);
    assert_eq!(parse("[    2.1] random: crng init done"), None);
}
