//! A stand-in for skiffd: answers the local API with fixed data, so that screens with data can
//! be compared without root. What the real one answers is tested in `tests/node`.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::{fs, thread};

use serde::Serialize;

use crate::place::Place;

/// One answer.
#[derive(Clone, Debug)]
struct Answer {
    status: u16,
    body: String,
    /// Keeps the connection open after the body, as long work does.
    open: bool,
}

/// What is answered to which request line (`GET /v1/status`).
#[derive(Debug, Default)]
pub struct StandIn {
    answers: Vec<(String, Answer)>,
}

impl StandIn {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn json(self, request: &str, value: &impl Serialize) -> Self {
        self.refuse(request, 200, value)
    }

    pub fn refuse(mut self, request: &str, status: u16, value: &impl Serialize) -> Self {
        let body = serde_json::to_string(value).expect("JSON");
        self.answers.push((request.into(), Answer { status, body, open: false }));
        self
    }

    /// A line a value; with `open` the last one is not the end.
    pub fn lines(mut self, request: &str, values: &[impl Serialize], open: bool) -> Self {
        let line = |value| serde_json::to_string(value).expect("JSON") + "\n";
        let body = values.iter().map(line).collect();
        self.answers.push((request.into(), Answer { status: 200, body, open }));
        self
    }

    /// Listens below the place's root until the test's process ends; answers the requests that
    /// were made, each when it was answered.
    pub fn listen(self, place: &Place) -> Receiver<String> {
        let socket = place.path("root/run/skiffd.sock");
        let listener = UnixListener::bind(&socket).expect("the socket is bound");
        fs::set_permissions(&socket, PermissionsExt::from_mode(0o666)).expect("it is opened");
        let (sender, receiver) = channel();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let answers = self.answers.clone();
                let sender = sender.clone();
                thread::spawn(move || serve(stream, &answers, &sender));
            }
        });
        receiver
    }
}

fn serve(mut stream: UnixStream, answers: &[(String, Answer)], sender: &Sender<String>) {
    let Some(request) = read_request(&stream) else { return };
    let known = answers.iter().find(|(line, _)| *line == request);
    let unknown =
        Answer { status: 404, body: r#"{"message":"no such request"}"#.into(), open: false };
    let answer = known.map_or(unknown, |(_, answer)| answer.clone());
    let head = format!("HTTP/1.1 {} X\r\nconnection: close\r\n\r\n", answer.status);
    let sent = stream.write_all((head + &answer.body).as_bytes()).and_then(|()| stream.flush());
    let _ = sender.send(request);
    if sent.is_ok() && answer.open {
        // Until the client goes away.
        let _ = stream.read(&mut [0; 1]);
    }
}

/// The first line without the version; head and body are read, so that closing is in order.
fn read_request(stream: &UnixStream) -> Option<String> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(first.rsplit_once(' ')?.0.to_owned())
}
