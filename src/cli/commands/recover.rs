mod screen;

use std::process::ExitCode;

use skiff_api::Quorum;
use skiff_datastore::backup::ExtractError;
use skiff_datastore::backup::place::PlaceError;
use skiff_datastore::backup::restore::BUMP_REVISION;
use skiff_datastore::recovery::{RecoveryError, Verdict};
use time::OffsetDateTime;
use time::macros::format_description;

use screen::{Done, Screen, done, of_quorum, of_survivor, text};

use super::Outcome;
use super::stop::order;
use crate::cli::confirm::{Loss, confirm};
use crate::cli::output::{self, Choice, Format};
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

pub(super) async fn run(arguments: Arguments, session: &Session) -> Outcome {
    let runs = session.running().await?.is_some();
    // Whoever may ask skiffd may look.
    let only_looks = runs && arguments.dry_run;
    if !account::is_root() && !only_looks {
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
        Looked::Unfinished(unfinished) => {
            let name = unfinished.name();
            if arguments.dry_run {
                ui::say(&format!("{name} was recovered already; {AGAIN} does what was left to do"));
            } else {
                unfinished.finish().map_err(failed)?;
                ui::say(&format!("{name} was recovered already; what was left to do is done"));
            }
            output::print(arguments.output, &Screen::default(), |_, _| String::new())?;
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
    let whole = "it was done or it was not; the same command tells";
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
        let hint = "sudo skiff recover on a voter or a stand-by; none left: here with --force";
        return Err(error.cause(cause).hint(hint));
    }
    Ok(())
}

fn behind(ahead: &[&str]) -> CommandError {
    let error = CommandError::new("another member holds more than this node");
    error
        .cause(format!("ahead: {}", ahead.join(", ")))
        .hint("sudo skiff recover there, or here with --force to lose what it has")
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
            "see that there is room for three copies of the datastore"
        }
        _ => "the node is as it was; skiff check",
    };
    let hint = hint.to_owned();
    CommandError::from(error).hint(hint)
}
