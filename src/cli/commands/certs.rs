mod authorities;

use std::process::ExitCode;

use skiff_api::{Certificate, CertificateState, Certificates, ClientError};
use time::OffsetDateTime;

use super::Outcome;
use super::tokens::until;
use crate::cli::output::{self, Cell, Choice};
use crate::cli::ui::{Paint, Tone};
use crate::cli::{EXIT_FAILURE, Session, interrupt, progress, ui};
use crate::node::{account, certificates};

/// Show this node's certificates, or replace them now
///
/// Nobody has to do the latter: each is replaced at half of its life, while
/// everything runs, and after a time off when the node is back.
///
///   skiff certs
///   skiff certs status --output json
///   skiff certs rotate
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment, args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,

    #[command(flatten)]
    output: Choice,
}

#[derive(clap::Subcommand, Debug)]
enum Verb {
    /// Show each: who shows it to whom, its end, and when it is replaced
    ///
    /// Above them stands how far the cluster is with new authorities, if some are
    /// on their way. Exits with 1 when a certificate is not good, or when the
    /// machine's clock cannot be right. On a stopped node root sees what lies on
    /// the disk.
    #[command(verbatim_doc_comment)]
    Status {
        #[command(flatten)]
        output: Choice,
    },
    /// Replace every certificate of this node now, with new keys
    ///
    /// Daemons take them up by themselves, within a minute; pods notice nothing.
    /// A worker asks its cluster for them. The authorities stay as they are, and
    /// so does the key by which the cluster knows a control-plane node. May be
    /// said again at any time.
    ///
    /// With --authorities the whole cluster gets new authorities and a new key of
    /// service accounts, while it runs: all nodes believe the new ones first, then
    /// sign with them, and forget the old ones after a hold. It waits for nodes that
    /// are off. Until the old ones are forgotten everywhere --back takes the cluster
    /// to where it was. Ctrl-C only ends the watching.
    ///
    ///   skiff certs rotate --authorities
    ///   skiff certs rotate --authorities --finish
    ///   skiff certs rotate --back
    #[command(verbatim_doc_comment)]
    Rotate(authorities::Arguments),
}

pub(super) async fn run(arguments: Arguments, session: &Session) -> Outcome {
    let output = match arguments.verb {
        None => arguments.output,
        Some(Verb::Status { output }) => output,
        Some(Verb::Rotate(arguments)) if arguments.is_meant() => {
            return authorities::run(arguments, session).await;
        }
        Some(Verb::Rotate(_)) => {
            let client = session.client();
            let work = progress::follow(&client, "/v1/certificates/rotate", &());
            let goes_on = "skiffd goes on replacing the certificates";
            ui::say(&interrupt::or_leave(work, goes_on, "skiff certs status").await?);
            return Ok(ExitCode::SUCCESS);
        }
    };
    let now = OffsetDateTime::now_utc();
    let all: Certificates = match session.client().get("/v1/certificates").await {
        // The day on which a node does not come up is the day on which this is asked.
        Err(ClientError::NotRunning(_)) if account::is_root() && session.paths.pki().is_dir() => {
            certificates::of_disk(&session.paths, now, None)
        }
        answer => answer?,
    };
    output::print(output, &all, |all, paint| text(all, now, paint))?;
    let good = |one: &Certificate| one.state == CertificateState::Valid;
    match all.clock.is_none() && all.certificates.iter().all(good) {
        true => Ok(ExitCode::SUCCESS),
        false => Ok(ExitCode::from(EXIT_FAILURE)),
    }
}

/// By their issuers, so that each is named once.
fn text(all: &Certificates, now: OffsetDateTime, paint: Paint) -> String {
    let mut issuers: Vec<&str> = Vec::new();
    for one in &all.certificates {
        if !issuers.contains(&&*one.issuer) {
            issuers.push(&one.issuer);
        }
    }
    let mut out = String::new();
    if let Some(rotation) = &all.rotation {
        out.push_str(&authorities::text(rotation, now, paint));
        out.push('\n');
    }
    for issuer in issuers {
        let of_issuer = all.certificates.iter().filter(|one| one.issuer == issuer);
        let title = match issuer {
            "" => "not to be read:".to_owned(),
            issuer => format!("signed by {issuer}:"),
        };
        out.push_str(&output::paragraph(&title, 0));
        let heads = ["NAME", "ENDS", "RENEWS", "WHO TO WHOM"];
        let mut rows = vec![heads.map(Cell::from).to_vec()];
        rows.extend(of_issuer.map(|one| row(one, now)));
        out.push_str(&output::table(&rows, 2, paint));
        out.push('\n');
    }
    if let Some(clock) = &all.clock {
        let warning = format!("the clock of this machine says {}: {clock}", all.now);
        out.push_str(&paint.bad(output::paragraph(&warning, 0).trim_end()));
        out.push('\n');
        let remedy = "remedy: timedatectl set-ntp true, or set it by hand";
        out.push_str(&output::paragraph(remedy, 2));
        out.push('\n');
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn row(one: &Certificate, now: OffsetDateTime) -> Vec<Cell> {
    let time = |at: &Option<String>| at.as_deref().map_or_else(|| "-".into(), |at| until(at, now));
    let ends = match one.state {
        CertificateState::Valid => Cell::new(time(&one.ends), Tone::Good),
        CertificateState::Expired | CertificateState::Unreadable => {
            Cell::new(time(&one.ends), Tone::Bad)
        }
        CertificateState::NotYetValid => Cell::new("not yet good", Tone::Bad),
    };
    vec![(&one.name).into(), ends, time(&one.renews).into(), (&one.purpose).into()]
}
