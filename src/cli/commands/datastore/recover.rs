use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;
use skiff_datastore::backup::ExtractError;
use skiff_datastore::backup::place::PlaceError;
use skiff_datastore::backup::restore::BUMP_REVISION;
use skiff_datastore::recovery::{Found, Options, Recovery, RecoveryError, State, Verdict};
use time::OffsetDateTime;
use time::macros::format_description;

use super::Outcome;
use crate::cli::CommandError;
use crate::cli::confirm::{Loss, confirm};
use crate::cli::output::{self, Cell, Choice, Format};
use crate::cli::ui::{self, Paint};

/// Bring a datastore back that has lost most of its voters
///
/// Run it on the survivor with the newest data, stopped. It reads what is there,
/// asks the other members what they have, says what would be lost, and asks.
/// Then a store with everything that this member holds takes the place of DIR, in
/// one rename; what was there is kept beside it as DIR.former-TIME.
///
///   skiff datastore recover --dir data --pki pki
///
/// The store has a new cluster id and one member, which starts without --join.
/// Others empty their directories and join it. See that no old member comes
/// back while it is not emptied: two of them would serve the lost store. As after
/// a restore, revisions go on higher than any that was given out.
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    /// The directory of the survivor
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,

    /// The identity by which other members answer; without it nobody is asked
    #[arg(long, value_name = "DIR")]
    pki: Option<PathBuf>,

    /// Directories of other stopped members that are at hand
    #[arg(long, value_name = "DIR,…", value_delimiter = ',')]
    also: Vec<PathBuf>,

    /// Say what there is and end
    #[arg(long)]
    dry_run: bool,

    /// Recover although another member holds more
    #[arg(long)]
    force: bool,

    /// Do not ask
    #[arg(long)]
    yes: bool,

    /// Raise the newest revision by this much
    ///
    /// It must exceed the number of changes that are lost.
    #[arg(long, value_name = "N", default_value_t = BUMP_REVISION)]
    #[arg(value_parser = clap::value_parser!(i64).range(0..=1_000_000_000_000))]
    bump_revision: i64,

    #[command(flatten)]
    output: Choice,
}

const LOSS: Loss<'_> =
    Loss { word: "recover", reason: "a recovery may lose data", otherwise: "repeat it with --yes" };

/// What was found and done, for programs.
#[derive(Debug, Serialize)]
struct Screen {
    #[serde(flatten)]
    found: Found,
    /// Members that hold more.
    ahead: Vec<String>,
    /// Members that could not be asked.
    unasked: Vec<String>,
    recovered: Option<Recovered>,
}

#[derive(Debug, Serialize)]
struct Recovered {
    dir: PathBuf,
    revision: i64,
    cluster: String,
    former: Option<PathBuf>,
}

pub(super) async fn run(arguments: Arguments) -> Outcome {
    let form = format_description!("[year][month][day]T[hour][minute][second]Z");
    let options = Options {
        dir: arguments.dir.clone(),
        pki: arguments.pki.clone(),
        also: arguments.also.clone(),
        ways: vec![],
        stamp: OffsetDateTime::now_utc().format(form).unwrap_or_default(),
    };
    ui::say("reading what this member holds, and asking the others");
    let recovery = Recovery::look(options).await.map_err(failed)?;
    let found = recovery.found().clone();
    let verdict = found.verdict();
    let mut screen = screen(found, &verdict);
    let quiet = arguments.output.format != Format::Text;
    if !quiet {
        output::write(&text(&screen, Paint::stdout()))?;
    }
    if arguments.dry_run {
        if quiet {
            output::print(arguments.output, &screen, |_, _| String::new())?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    judge(&verdict, &arguments)?;
    if !arguments.yes {
        ask(&verdict)?;
    }
    let restored = recovery.finish(arguments.bump_revision).await.map_err(failed)?;
    screen.recovered = Some(Recovered {
        dir: arguments.dir,
        revision: restored.contents.revision.0,
        cluster: format!("{:016x}", restored.contents.cluster_id),
        former: restored.former,
    });
    output::print(arguments.output, &screen, done)?;
    Ok(ExitCode::SUCCESS)
}

fn judge(verdict: &Verdict, arguments: &Arguments) -> Result<(), CommandError> {
    match verdict {
        Verdict::Led(leader) => {
            let error = CommandError::new(format!("member {leader} leads: the quorum is not lost"));
            Err(error.hint("start this member as usual"))
        }
        Verdict::Behind(ahead) if !arguments.force => {
            let error = CommandError::new("another member holds more than this one");
            let error = error.cause(format!("ahead: {}", ahead.join(", ")));
            Err(error.hint("recover there, or repeat it here with --force to lose what it has"))
        }
        _ => Ok(()),
    }
}

fn ask(verdict: &Verdict) -> Result<(), CommandError> {
    let unasked = matches!(verdict, Verdict::Best { unasked } if !unasked.is_empty());
    let warning = "whatever only the members hold that could not be asked will be lost";
    confirm(LOSS, if unasked { std::slice::from_ref(&warning) } else { &[] })
}

fn screen(found: Found, verdict: &Verdict) -> Screen {
    let (mut ahead, mut unasked) = (Vec::new(), Vec::new());
    match verdict {
        Verdict::Behind(names) => ahead.clone_from(names),
        Verdict::Best { unasked: names } => unasked.clone_from(names),
        Verdict::Led(_) => {}
    }
    Screen { found, ahead, unasked, recovered: None }
}

fn text(screen: &Screen, paint: Paint) -> String {
    let found = &screen.found;
    let mut rows = vec![["MEMBER", "ADDRESS", "HOLDS"].map(Cell::from).to_vec()];
    let Found { term, index, revision, keys, leases, .. } = found;
    let own =
        format!("revision {revision}, {keys} keys, {leases} leases, log {term}/{index} (this one)");
    rows.push(vec![(&found.member).into(), (&found.address).into(), own.into()]);
    if let Some(cluster) = &found.cluster {
        let record = format!("cluster: revision {}, {} keys", cluster.revision, cluster.keys);
        rows.push(vec!["".into(), "".into(), record.into()]);
    }
    for other in &found.others {
        let mut holds = match &other.state {
            State::Silent { reason } => format!("unknown: {reason}"),
            State::Running { revision, leads: true, .. } => format!("revision {revision}, leads"),
            State::Running { revision, .. } => format!("revision {revision}, runs"),
            State::Stopped { term, index, .. } => format!("log {term}/{index}, stopped"),
        };
        if screen.ahead.contains(&other.member) {
            holds.push_str(", more than this one");
        }
        rows.push(vec![(&other.member).into(), (&other.address).into(), holds.into()]);
    }
    output::table(&rows, 0, paint)
}

fn done(screen: &Screen, paint: Paint) -> String {
    let Some(recovered) = &screen.recovered else { return String::new() };
    let mut rows: Vec<Vec<Cell>> = vec![
        vec!["recovered".into(), recovered.dir.display().to_string().into()],
        vec!["goes on at".into(), recovered.revision.to_string().into()],
        vec!["cluster".into(), (&recovered.cluster).into()],
    ];
    if let Some(former) = &recovered.former {
        rows.push(vec!["former".into(), former.display().to_string().into()]);
    }
    let next = "Start it without --join. Empty the directories of the other members before they \
                start again, and let them join.";
    format!("\n{}\n{}", output::table(&rows, 0, paint), output::paragraph(next, 0))
}

fn failed(error: RecoveryError) -> CommandError {
    let hint = match &error {
        RecoveryError::Place(PlaceError::Runs { .. }) => Some("stop that member first"),
        RecoveryError::NoMember { .. } => {
            Some("a store of one member has no quorum to lose: start it, or restore a backup")
        }
        RecoveryError::Removed { .. } => Some("recover from a member that was not removed"),
        RecoveryError::Empty { .. } => Some("recover from another member"),
        RecoveryError::Foreign { .. } => Some("name directories of members of this cluster"),
        RecoveryError::Extract(ExtractError::Log { .. } | ExtractError::Load { .. }) => {
            Some("its files are damaged: recover from another member, or restore a backup")
        }
        RecoveryError::Extract(ExtractError::Copy { .. }) | RecoveryError::Restore(_) => {
            Some("the directory is as it was; see that there is room for two copies beside it")
        }
        _ => None,
    };
    let error = CommandError::from(error);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}
