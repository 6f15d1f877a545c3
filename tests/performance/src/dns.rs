//! When names are answered: a question to the cluster's resolver, again and again.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::client::inside;
use crate::subject::Subject;

const SERVER: &str = "10.152.183.10:53";
const NAME: &str = "kubernetes.default.svc.cluster.local";
const BOUND: Duration = Duration::from_secs(180);
/// A question whose packet is lost is asked again after this.
const PATIENCE: Duration = Duration::from_millis(100);

/// Returns when the Service's address is answered.
pub fn wait_answer(subject: &dyn Subject) -> Result<()> {
    inside(subject, || async {
        let begun = Instant::now();
        let question = question(NAME);
        while begun.elapsed() < BOUND {
            if let Ok(answer) = ask(&question)
                && is_good(&answer)
            {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("no name was answered within {} s", BOUND.as_secs())
    })
}

fn ask(question: &[u8]) -> std::io::Result<Vec<u8>> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(SERVER)?;
    socket.send(question)?;
    let mut answer = vec![0; 512];
    let length = socket.recv(&mut answer)?;
    answer.truncate(length);
    Ok(answer)
}

/// One question of class IN for an A record (RFC 1035, section 4).
fn question(name: &str) -> Vec<u8> {
    let mut packet = vec![0x53, 0x4b, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        packet.push(label.len() as u8);
        packet.extend(label.bytes());
    }
    packet.extend([0, 0, 1, 0, 1]);
    packet
}

/// An answer to ours, without an error, with at least one record.
fn is_good(answer: &[u8]) -> bool {
    answer.len() > 12
        && answer[..2] == [0x53, 0x4b]
        && answer[2] & 0x80 != 0
        && answer[3] & 0x0f == 0
        && answer[6..8] != [0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_no_answer_and_an_answer_has_records() {
        let mut packet = question("a.b");
        assert_eq!(packet[12..], [1, b'a', 1, b'b', 0, 0, 1, 0, 1]);
        assert!(!is_good(&packet));
        packet[2] |= 0x80;
        assert!(!is_good(&packet));
        packet[7] = 1;
        assert!(is_good(&packet));
        packet[3] |= 3;
        assert!(!is_good(&packet));
    }
}
