use std::path::PathBuf;
use std::process::ExitCode;

use microcluster::record::MemberView;
use serde::Serialize;
use skiff_api::Quorum;
use skiff_datastore::backup::ExtractError;
use skiff_datastore::backup::place::PlaceError;
use skiff_datastore::backup::restore::BUMP_REVISION;
use skiff_datastore::recovery::{RecoveryError, State, Verdict};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

use super::Outcome;
use super::stop::order;
use crate::cli::confirm::{Loss, confirm};
use crate::cli::output::{self, Cell, Choice, Format};
use crate::cli::skiffd::Skiffd;
use crate::cli::ui::{self, Paint};
use crate::cli::{CommandError, Session, interrupt, span};
use crate::node::account;
use crate::node::cluster::recover::{Looked, RecoverError, Recovered, Survivor, look};

/// Bring a cluster back whose quorum is lost for ever
///
/// Most of the control-plane nodes whose datastores vote are gone and will not
/// come back: this one goes on alone, with everything that it holds, and others
/// join it. Type it on the survivor with the newest data. It asks each other
/// member what it has, says what would be lost, and asks before it acts; then
/// the node is stopped, pods included, and started as the cluster.
///
/// The other control-plane nodes are removed from the cluster: their identities
/// are refused. Workers stay members. Tokens to join with are revoked. One rename
/// puts the new state in place; interrupted, it is done or not, and may be typed
/// again. The datastore of before is kept beside the new one.
///
///   sudo skiff recover --dry-run
///   sudo skiff recover
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    /// Say what there is and end; a node that runs goes on
    #[arg(long)]
    dry_run: bool,

    /// Recover although another member holds more, or most voters answer
    #[arg(long)]
    force: bool,

    /// Do not ask
    #[arg(long)]
    yes: bool,

    /// Do not start the node afterwards
    #[arg(long)]
    no_start: bool,

    /// Seconds to wait until the node is ready; 0 waits as long as it takes
    #[arg(long, default_value = "300", value_parser = span::seconds, value_name = "SECONDS")]
    timeout: u64,

    /// Raise the newest revision by this much
    ///
    /// It must exceed the number of changes that are lost.
    #[arg(long, value_name = "N", default_value_t = BUMP_REVISION)]
    #[arg(value_parser = clap::value_parser!(i64).range(0..=1_000_000_000_000))]
    bump_revision: i64,

    #[command(flatten)]
    output: Choice,
}

const LOSS: Loss<'_> = Loss {
    word: "recover",
    reason: "what only lost members hold is given up",
    otherwise: "repeat it with --yes",
};

const AGAIN: &str = "sudo skiff recover";

/// What is found, and what was done.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Screen {
    members: Vec<Line>,
    /// Control-plane nodes that will not belong to the cluster any more.
    leaves_behind: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovered: Option<Done>,
}

/// A member of the datastore.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    node: String,
    address: String,
    own: bool,
    /// `this-node`, `leads`, `runs`, `stopped` or `silent`.
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<i64>,
    /// Of the cluster's record.
    #[serde(skip_serializing_if = "Option::is_none")]
    record_revision: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_contact: Option<String>,
    /// Why it did not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Done {
    node: String,
    revision: i64,
    removed: Vec<String>,
    former: Option<PathBuf>,
}

pub(super) async fn run(arguments: Arguments, session: &Session) -> Outcome {
    let runs = session.running().await?.is_some();
    // Whoever may ask skiffd may look.
    if !account::is_root() && !(runs && arguments.dry_run) {
        return Err(CommandError::new("recovering a cluster needs root").hint(AGAIN));
    }
    let quiet = arguments.output.format != Format::Text;
    let mut seen = None;
    if runs {
        let quorum = ask_running(session).await?;
        let screen = of_quorum(&quorum);
        if arguments.dry_run || !quiet {
            output::print(arguments.output, &screen, text)?;
        }
        judge_quorum(&quorum, arguments.force)?;
        if arguments.dry_run {
            return Ok(ExitCode::SUCCESS);
        }
        if !arguments.yes {
            confirm(LOSS, &["the node is stopped, its pods included, and started again"])?;
        }
        let stop = order(session, "/v1/stop", Skiffd::of(&session.paths));
        let goes_on = "skiffd goes on stopping the node; nothing was recovered";
        interrupt::or_leave(stop, goes_on, AGAIN).await?;
        seen = Some(quorum);
    }
    let done = bring_back(&arguments, session, seen).await?;
    if done && !arguments.no_start {
        super::start::bring_up(session, arguments.timeout).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What is done on a node that is stopped; whether there is something to be started.
async fn bring_back(
    arguments: &Arguments,
    session: &Session,
    seen: Option<Quorum>,
) -> Result<bool, CommandError> {
    let form = format_description!("[year][month][day]T[hour][minute][second]Z");
    let stamp = OffsetDateTime::now_utc().format(form).unwrap_or_default();
    ui::say("reading what this node holds, and asking the other members");
    let look = async { look(&session.paths, &stamp).await.map_err(failed) };
    // Once signals are looked for they end nobody, and somebody may be asked below.
    let looked = match seen {
        Some(_) => {
            let stopped = "the node is stopped; nothing was recovered";
            interrupt::or_leave(look, stopped, AGAIN).await
        }
        None => look.await,
    };
    let survivor = match looked? {
        Looked::Survivor(survivor) => survivor,
        Looked::Finished(membership) => {
            let name = membership.name;
            ui::say(&format!("{name} was recovered already; what was left to do is done"));
            return Ok(!arguments.dry_run);
        }
    };
    let verdict = survivor.found().verdict();
    let mut screen = of_survivor(&survivor, seen.as_ref(), &verdict);
    if arguments.output.format == Format::Text {
        output::write(&text(&screen, Paint::stdout()))?;
    }
    if arguments.dry_run {
        if arguments.output.format != Format::Text {
            output::print(arguments.output, &screen, text)?;
        }
        return Ok(false);
    }
    judge(&survivor, &verdict, arguments.force)?;
    // Whoever was asked while the node ran has said it.
    if !arguments.yes && seen.is_none() {
        confirm(LOSS, &[])?;
    }
    let finish = async { survivor.finish(arguments.bump_revision).await.map_err(failed) };
    let whole = "either nothing was recovered or everything; the same command tells";
    let recovered = interrupt::or_leave(finish, whole, AGAIN).await?;
    let Recovered { node, revision, removed, former } = recovered;
    screen.recovered = Some(Done { node, revision, removed, former });
    output::print(arguments.output, &screen, done)?;
    Ok(true)
}

async fn ask_running(session: &Session) -> Result<Quorum, CommandError> {
    let seen = session.client().get::<Option<Quorum>>("/v1/cluster/quorum").await?;
    seen.ok_or_else(|| {
        let error = CommandError::new("the node has just started and has not looked yet");
        error.hint("sudo skiff recover, in some seconds")
    })
}

/// A node that runs sees by itself whether there is something to recover.
fn judge_quorum(quorum: &Quorum, force: bool) -> Result<(), CommandError> {
    if let Some(leader) = &quorum.leader {
        let error = CommandError::new(format!("the datastore on {leader} leads"));
        return Err(error.cause("the quorum is not lost").hint("skiff nodes"));
    }
    if !quorum.is_lost() && !force {
        let Quorum { reachable, voters, .. } = quorum;
        let error = CommandError::new(format!("{reachable} of {voters} voters are reachable"));
        return Err(error
            .cause("they agree on a leader by themselves, within seconds")
            .hint("skiff status"));
    }
    if force {
        return Ok(());
    }
    let own = quorum.members.iter().find(|member| member.own);
    let held = own.and_then(|own| own.revision).unwrap_or(0);
    let ahead = quorum.members.iter().filter(|member| !member.own && member.reachable);
    let ahead = ahead.filter(|member| member.revision.is_some_and(|theirs| theirs > held));
    let ahead: Vec<&str> = ahead.map(|member| &*member.name).collect();
    if !ahead.is_empty() {
        return Err(behind(&ahead));
    }
    if own.is_some_and(|own| own.role.as_deref() == Some("spare")) {
        let error = CommandError::new("what this node holds is out of date");
        let cause = "its datastore is a spare: since it became one it was sent nothing";
        return Err(error.cause(cause).hint(
            "sudo skiff recover on another control-plane node; when there is none, here with \
             --force, or sudo skiff backup restore FILE",
        ));
    }
    Ok(())
}

fn behind(ahead: &[&str]) -> CommandError {
    let error = CommandError::new("another member holds more than this node");
    error
        .cause(format!("ahead: {}", ahead.join(", ")))
        .hint("sudo skiff recover there; or here with --force, which loses what it has more")
}

fn judge(survivor: &Survivor, verdict: &Verdict, force: bool) -> Result<(), CommandError> {
    let name = |member: &String| {
        let others = &survivor.found().others;
        let other = others.iter().find(|other| other.member == *member);
        let view = other.and_then(|other| survivor.node(&other.node));
        view.map_or_else(|| member.clone(), |view| view.name.to_string())
    };
    match verdict {
        Verdict::Led(leader) => {
            let error = CommandError::new(format!("the datastore on {} leads", name(leader)));
            Err(error.cause("the quorum is not lost").hint("sudo skiff start"))
        }
        Verdict::Behind(ahead) if !force => {
            let ahead: Vec<String> = ahead.iter().map(name).collect();
            Err(behind(&ahead.iter().map(String::as_str).collect::<Vec<_>>()))
        }
        _ => Ok(()),
    }
}

fn of_quorum(quorum: &Quorum) -> Screen {
    let line = |member: &skiff_api::QuorumMember| Line {
        node: member.name.clone(),
        address: member.address.clone(),
        own: member.own,
        state: match (member.own, member.reachable) {
            _ if quorum.leader.as_ref() == Some(&member.name) => "leads",
            (true, _) => "this-node",
            (false, true) => "runs",
            (false, false) => "silent",
        },
        revision: member.revision,
        record_revision: None,
        last_contact: member.last_contact.clone().filter(|_| !member.own),
        reason: None,
    };
    let others = quorum.members.iter().filter(|member| !member.own);
    Screen {
        members: quorum.members.iter().map(line).collect(),
        leaves_behind: others.map(|member| member.name.clone()).collect(),
        recovered: None,
    }
}

/// `seen` is what skiffd saw before the node was stopped.
fn of_survivor(survivor: &Survivor, seen: Option<&Quorum>, verdict: &Verdict) -> Screen {
    let found = survivor.found();
    let mut members = vec![Line {
        node: survivor.name(),
        address: found.address.clone(),
        own: true,
        state: "this-node",
        revision: Some(found.revision),
        record_revision: found.cluster.map(|record| record.revision),
        last_contact: None,
        reason: None,
    }];
    for other in &found.others {
        let view = survivor.node(&other.node);
        let node = view.as_ref().map_or_else(|| other.member.clone(), |view| view.name.to_string());
        let was_seen = seen.and_then(|quorum| quorum.members.iter().find(|one| one.name == node));
        let last_contact = was_seen.and_then(|one| one.last_contact.clone());
        let (state, revision, record_revision, reason) = match &other.state {
            State::Silent { reason } => ("silent", None, None, Some(reason.clone())),
            State::Running { revision, cluster_revision, leads } => {
                let state = if *leads { "leads" } else { "runs" };
                (state, Some(*revision), *cluster_revision, None)
            }
            State::Stopped { .. } => ("stopped", None, None, None),
        };
        members.push(Line {
            node,
            address: other.address.clone(),
            own: false,
            state,
            revision,
            record_revision,
            last_contact: last_contact.or_else(|| recorded(view.as_ref())),
            reason,
        });
    }
    let leaves_behind = match verdict {
        Verdict::Led(_) => vec![],
        Verdict::Behind(_) | Verdict::Best { .. } => survivor.leaves_behind(),
    };
    Screen { members, leaves_behind, recovered: None }
}

/// When the cluster's record heard of a node last: at the latest renewal of its certificates.
fn recorded(view: Option<&MemberView>) -> Option<String> {
    view.and_then(|view| view.last_contact.replace_nanosecond(0).ok()?.format(&Rfc3339).ok())
}

fn text(screen: &Screen, paint: Paint) -> String {
    let number = |number: Option<i64>| number.map_or_else(|| "-".into(), |one| one.to_string());
    let heads = ["NODE", "STATE", "REVISION", "RECORD", "LAST CONTACT", "ADDRESS"];
    let mut rows = vec![heads.map(Cell::from).to_vec()];
    for line in &screen.members {
        rows.push(vec![
            (&line.node).into(),
            line.state.into(),
            number(line.revision).into(),
            number(line.record_revision).into(),
            line.last_contact.as_deref().unwrap_or("-").into(),
            (&line.address).into(),
        ]);
    }
    let mut out = output::table(&rows, 0, paint);
    let silent = screen.members.iter().filter(|line| line.state == "silent");
    let silent: Vec<&str> = silent.map(|line| line.node.as_str()).collect();
    if !silent.is_empty() {
        let names = silent.join(", ");
        let lost = format!(
            "Nobody knows what {names} acknowledged besides: what this node has not received is \
             lost."
        );
        out.push_str(&output::paragraph(&lost, 0));
    }
    if !screen.leaves_behind.is_empty() {
        let names = screen.leaves_behind.join(", ");
        let removed = format!("No longer members, and refused from then on: {names}.");
        out.push_str(&output::paragraph(&removed, 0));
    }
    out
}

fn done(screen: &Screen, paint: Paint) -> String {
    let Some(recovered) = &screen.recovered else { return String::new() };
    let mut rows: Vec<Vec<Cell>> = vec![
        vec!["recovered".into(), (&recovered.node).into()],
        vec!["goes on at".into(), recovered.revision.to_string().into()],
    ];
    rows.extend(recovered.removed.iter().map(|name| vec!["removed".into(), name.into()]));
    if let Some(former) = &recovered.former {
        rows.push(vec!["former".into(), former.display().to_string().into()]);
    }
    let next = "Keep the removed machines off the network until `sudo skiff reset` has emptied \
                them. They and others join with new tokens: sudo skiff add-node";
    format!("\n{}\n{}", output::table(&rows, 0, paint), output::paragraph(next, 0))
}

fn failed(error: RecoverError) -> CommandError {
    let hint = match &error {
        RecoverError::Runs => "sudo skiff stop, then sudo skiff recover",
        RecoverError::DaemonsRun
        | RecoverError::Place(PlaceError::Runs { .. })
        | RecoverError::Recovery(RecoveryError::Place(PlaceError::Runs { .. })) => {
            "sudo skiff start, then sudo skiff recover"
        }
        RecoverError::Alone | RecoverError::Sole => "sudo skiff start",
        RecoverError::Worker => "type it on a control-plane node that is left",
        RecoverError::Joining => "sudo skiff reset, and recover another control-plane node",
        RecoverError::Switch(_) => "mend that; `sudo skiff start` goes on where this ended",
        RecoverError::NoRecord
        | RecoverError::Record(_)
        | RecoverError::Recovery(
            RecoveryError::Removed { .. }
            | RecoveryError::Empty { .. }
            | RecoveryError::NoMember { .. }
            | RecoveryError::Extract(ExtractError::Log { .. } | ExtractError::Load { .. }),
        ) => "recover another control-plane node, or sudo skiff backup restore FILE",
        RecoverError::Refused(refusal) => &refusal.hint.clone(),
        RecoverError::Recovery(RecoveryError::Extract(_) | RecoveryError::Restore(_)) => {
            "the node is as it was; see that there is room for three copies of its datastore"
        }
        _ => "the node is as it was; skiff check",
    };
    let hint = hint.to_owned();
    CommandError::from(error).hint(hint)
}
