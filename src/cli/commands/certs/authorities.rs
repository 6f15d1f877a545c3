//! `skiff certs rotate --authorities`: asks for it, and shows how far the cluster is.

use std::process::ExitCode;
use std::time::Duration;

use skiff_api::{AuthorityRotation, RotateAuthorities, RotationNode};
use time::OffsetDateTime;

use crate::cli::commands::Outcome;
use crate::cli::commands::tokens::until;
use crate::cli::confirm::{Loss, confirm};
use crate::cli::interrupt;
use crate::cli::output::{self, Cell};
use crate::cli::ui::{self, Paint, Tone, Waiting};
use crate::cli::{CommandError, Session, span};

/// How often it is looked at.
const PAUSE: Duration = Duration::from_millis(500);

#[derive(clap::Args, Debug)]
#[group(skip)]
pub struct Arguments {
    /// Replace the authorities of the whole cluster, and the key of service accounts
    #[arg(long)]
    authorities: bool,

    /// How long the old ones are believed after they have stopped signing: 24h, 7d
    #[arg(long, default_value = "24h", value_parser = span::seconds, value_name = "TIME")]
    #[arg(requires = "authorities")]
    hold: u64,

    /// Do not wait for this node, which is off (can be repeated)
    #[arg(long, value_name = "NODE", requires = "authorities")]
    without: Vec<String>,

    /// Keep nothing of the old ones: nodes that are off must join again
    #[arg(long, requires = "authorities")]
    distrust: bool,

    /// End the hold now
    #[arg(long, requires = "authorities", conflicts_with_all = ["without", "distrust", "hold"])]
    finish: bool,

    /// Turn round: the cluster goes back to its old authorities
    #[arg(long, conflicts_with = "authorities")]
    back: bool,

    /// Return when the cluster has written it down
    #[arg(long)]
    no_wait: bool,

    /// Do not ask
    #[arg(long)]
    yes: bool,
}

impl Arguments {
    /// Whether this is about authorities.
    pub fn is_meant(&self) -> bool {
        self.authorities || self.back
    }
}

const DISTRUST: Loss<'_> = Loss {
    word: "distrust",
    reason: "nothing is kept of the old authorities in the end",
    otherwise: "skiff certs rotate --authorities --distrust --yes",
};
const CUT_OFF: &str = "when it ends, pods that were started before it and talk to the API must have been \
     started again, and a node that is off then must join again";

/// client-go looks at a file of authorities again five minutes after it did so last.
const UNREAD: &str = "nothing is kept of the old authorities: kubelets that have not read the new ones yet, \
     five minutes after all nodes believe them at most, miss the API until they do";

const EARLY: Loss<'_> = Loss {
    word: "finish",
    reason: "pods have tokens that are refused from then on",
    otherwise: "skiff certs rotate --authorities --finish --yes",
};

pub async fn run(arguments: Arguments, session: &Session) -> Outcome {
    let client = session.client();
    let path = |action: &str| format!("/v1/authorities/{action}");
    let answer: Option<AuthorityRotation> = if arguments.back {
        client.post(&path("back"), &()).await?
    } else if arguments.finish {
        ask_before_an_early_end(&arguments, session).await?;
        client.post(&path("finish"), &()).await?
    } else {
        let Arguments { hold, without, distrust, yes, .. } = &arguments;
        if *distrust && !yes {
            confirm(DISTRUST, &[CUT_OFF])?;
        }
        let request =
            RotateAuthorities { hold_s: *hold, without: without.clone(), distrust: *distrust };
        client.post(&path("rotate"), &request).await?
    };
    match answer {
        Some(rotation) if arguments.no_wait => ui::say(&sentence(&rotation)),
        _ => {
            let work = follow(session, arguments.back);
            let goes_on = "the cluster goes on";
            ui::say(&interrupt::or_leave(work, goes_on, "skiff certs status").await?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Tokens of pods live an hour.
async fn ask_before_an_early_end(
    arguments: &Arguments,
    session: &Session,
) -> Result<(), CommandError> {
    let rotation: Option<AuthorityRotation> = session.client().get("/v1/authorities").await?;
    let Some(rotation) = rotation.filter(|_| !arguments.yes) else { return Ok(()) };
    let Some(early) = rotation.tokens_until else { return Ok(()) };
    let warning = format!(
        "pods have tokens that the key of before has signed, until {early} at most: they are \
         refused by the API server from then on, until the pod gets its next one or is started again"
    );
    let mut warnings = vec![warning.as_str()];
    if rotation.distrust {
        warnings.push(UNREAD);
    }
    confirm(EARLY, &warnings)
}

/// Shows each step until there is nothing to wait for but the end of a hold.
async fn follow(session: &Session, back: bool) -> Result<String, CommandError> {
    let mut waiting = Waiting::new();
    loop {
        let rotation: Option<AuthorityRotation> = session.client().get("/v1/authorities").await?;
        let Some(rotation) = rotation else {
            return Ok(if back { GONE_BACK } else { DONE }.into());
        };
        if let Some(until) = &rotation.held_until {
            return Ok(held(&rotation, until));
        }
        // It does not try again, and no other one tries.
        if let Some(error) = missing(&rotation).into_iter().find_map(failed) {
            return Err(error);
        }
        waiting.show(&sentence(&rotation));
        tokio::time::sleep(PAUSE).await;
    }
}

fn failed(node: &RotationNode) -> Option<CommandError> {
    let reason = node.reason.as_deref()?;
    let message = format!("{} does not run with this step, and went back: {reason}", node.name);
    let hint = "skiff certs rotate --back, or `--authorities` after it, which tries again";
    Some(CommandError::new(message).hint(hint))
}

const DONE: &str = "the cluster has new authorities alone; pods that were started before go on \
     believing the old one until they are started again: skiff kubectl rollout restart";
const GONE_BACK: &str = "the cluster has its old authorities alone, as before";

fn held(rotation: &AuthorityRotation, until: &str) -> String {
    let (signs, other, turn) = match rotation.back {
        false => (&rotation.new, &rotation.old, "--back"),
        true => (&rotation.old, &rotation.new, "--authorities"),
    };
    format!(
        "{signs} signs on every node; {other} is believed until {until}: give out new kubeconfigs \
         before then\n`skiff certs rotate --authorities --finish` ends that now, `skiff certs \
         rotate {turn}` turns round"
    )
}

/// Where the cluster goes, in words.
fn target(rotation: &AuthorityRotation) -> String {
    let AuthorityRotation { old, new, .. } = rotation;
    match &*rotation.position {
        "old" => format!("{old} alone is believed"),
        "both-old" => format!("{old} and {new} are believed, {old} signs"),
        "both-new" => format!("{old} and {new} are believed, {new} signs"),
        _ => format!("{new} alone is believed"),
    }
}

fn missing(rotation: &AuthorityRotation) -> Vec<&RotationNode> {
    rotation.nodes.iter().filter(|node| node.waited_for && !node.done).collect()
}

fn sentence(rotation: &AuthorityRotation) -> String {
    let missing: Vec<&str> = missing(rotation).iter().map(|node| &*node.name).collect();
    let (step, target) = (rotation.step, target(rotation));
    match missing.is_empty() {
        true => format!("step {step}: {target}; every node is there"),
        false => format!("step {step}: {target}; waits for {}", missing.join(", ")),
    }
}

/// As it stands above the certificates.
pub fn text(rotation: &AuthorityRotation, now: OffsetDateTime, paint: Paint) -> String {
    let way =
        if rotation.back { "goes back to its old authorities" } else { "gets new authorities" };
    let mut title = format!("the cluster {way}, step {}: {}", rotation.step, target(rotation));
    if let Some(end) = &rotation.held_until {
        title.push_str(&format!("; what signed before is believed until {end}"));
    }
    let mut out = output::paragraph(&title, 0);
    let mut rows = vec![["NODE", "STEP", "CONTACT", "WHY"].map(Cell::from).to_vec()];
    for node in &rotation.nodes {
        let (state, tone) = match (node.done, node.waited_for, &node.reason) {
            (true, ..) => ("done", Tone::Good),
            (_, _, Some(_)) => ("failed", Tone::Bad),
            (_, false, _) => ("not waited for", Tone::Dim),
            (_, true, _) => ("not yet", Tone::Warn),
        };
        rows.push(vec![
            (&node.name).into(),
            Cell::new(state, tone),
            until(&node.last_contact, now).into(),
            node.reason.as_deref().unwrap_or("-").into(),
        ]);
    }
    out.push_str(&output::table(&rows, 2, paint));
    if !rotation.token_secrets.is_empty() {
        let (count, names) = (rotation.token_secrets.len(), rotation.token_secrets.join(", "));
        let note = format!(
            "{count} Secrets hold tokens that end when what has signed them is dropped: {names}; make \
             them anew when the new ones sign"
        );
        out.push_str(&output::paragraph(&note, 2));
    }
    out
}
