use std::process::ExitCode;

use skiff_api::{Token, TokenState};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Outcome;
use crate::cli::output::{self, Cell, Choice};
use crate::cli::ui::{Paint, Tone};
use crate::cli::{Session, ui};

/// List the tokens that machines can join with, or take one back
///
/// The text of a token is told once, when it is made; here they have names. What
/// is over is listed for a week.
///
///   skiff tokens
///   skiff tokens revoke gd64bzds
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
    /// List the tokens and what they are good for
    List {
        #[command(flatten)]
        output: Choice,
    },
    /// Take tokens back: nobody joins with them any more
    Revoke {
        /// Token, as `skiff tokens list` lists them (can be repeated)
        #[arg(required = true, value_name = "TOKEN")]
        tokens: Vec<String>,
    },
}

pub(super) async fn run(arguments: Arguments, session: &Session) -> Outcome {
    let client = session.client();
    let list = match arguments.verb {
        None => arguments.output,
        Some(Verb::List { output }) => output,
        Some(Verb::Revoke { tokens }) => {
            for token in &tokens {
                let path = format!("/v1/cluster/tokens/{token}/revoke");
                client.post::<_, ()>(&path, &()).await?;
                ui::say(&format!("{token} is revoked"));
            }
            return Ok(ExitCode::SUCCESS);
        }
    };
    let tokens: Vec<Token> = client.get("/v1/cluster/tokens").await?;
    let now = OffsetDateTime::now_utc();
    output::print(list, &tokens, |all, paint| text(all, now, paint))?;
    Ok(ExitCode::SUCCESS)
}

fn text(tokens: &[Token], now: OffsetDateTime, paint: Paint) -> String {
    let heads = ["TOKEN", "STATE", "ROLE", "USES", "EXPIRES", "NAME"];
    let mut rows = vec![heads.map(Cell::from).to_vec()];
    for token in tokens {
        let (state, tone) = match token.state {
            TokenState::Live => ("live", Tone::Good),
            TokenState::Used => ("used", Tone::Dim),
            TokenState::Expired => ("expired", Tone::Dim),
            TokenState::Revoked => ("revoked", Tone::Dim),
            TokenState::WornOut => ("worn-out", Tone::Bad),
        };
        rows.push(vec![
            (&token.id).into(),
            Cell::new(state, tone),
            (&token.role).into(),
            format!("{} of {}", token.uses_left, token.uses).into(),
            until(&token.expires, now).into(),
            token.name.clone().unwrap_or_else(|| "-".into()).into(),
        ]);
    }
    output::table(&rows, 0, paint)
}

/// `in 59m`, `3d ago`
pub(super) fn until(text: &str, now: OffsetDateTime) -> String {
    let Ok(at) = OffsetDateTime::parse(text, &Rfc3339) else { return "-".into() };
    let seconds = (at - now).whole_seconds();
    let age = output::age(seconds.unsigned_abs());
    if seconds >= 0 { format!("in {age}") } else { format!("{age} ago") }
}
