use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::ValueEnum;
use skiff_api::{Token, TokenRequest};

use super::Outcome;
use crate::cli::{Session, output, progress, span, ui};

/// Make a token for a machine that joins, and say what to type there
///
/// The first time, this node becomes the first of a cluster: its datastore and
/// kubelet are restarted, pods go on. The other machine needs Skiff, and a way
/// to the ports 7443 and 6443 of this one, and of every other control-plane node;
/// between all nodes, UDP 8472 and TCP 10250.
///
/// The machine will run the control plane and hold the cluster's data and keys,
/// unless it is to be a worker. With three such nodes any one may fail; with two,
/// the data has one copy that counts. The controllers of this node start anew
/// when the second one joins.
///
/// Whoever has the token can join with it until it is used or its time is over.
///
///   skiff add-node
///   skiff add-node --worker --name gpu-1 --label gpu=yes --ttl 10m
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    /// The machine runs pods and no control plane
    #[arg(long)]
    worker: bool,

    /// Life of the token: 90m, 12h, 30d
    #[arg(long, default_value = "1h", value_parser = span::seconds, value_name = "TIME")]
    ttl: u64,

    /// How many machines may join with it
    #[arg(long, default_value_t = 1, value_name = "COUNT")]
    uses: u32,

    /// Only a node of this name may join
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// Label of the node, KEY=VALUE (can be repeated)
    #[arg(long = "label", value_name = "LABEL", value_parser = label)]
    labels: Vec<(String, String)>,

    /// Taint of the node, KEY=VALUE:EFFECT (can be repeated)
    #[arg(long = "taint", value_name = "TAINT")]
    taints: Vec<String>,

    /// How to print it
    #[arg(short = 'o', long = "output", value_enum, default_value_t, value_name = "FORMAT")]
    form: Form,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Form {
    /// The command, and on standard error what it is good for
    #[default]
    Text,
    /// The command alone
    Short,
    /// For programs
    Json,
    /// For programs
    Yaml,
}

pub(super) async fn run(arguments: Arguments, session: &Session) -> Outcome {
    let client = session.client();
    progress::follow(&client, "/v1/cluster/found", &()).await?;
    let request = TokenRequest {
        name: arguments.name,
        labels: arguments.labels.into_iter().collect::<BTreeMap<_, _>>(),
        taints: arguments.taints,
        ttl_s: arguments.ttl,
        uses: arguments.uses,
        worker: arguments.worker,
    };
    let token: Token = client.post("/v1/cluster/tokens", &request).await?;
    let command = token.command.clone().unwrap_or_default();
    match arguments.form {
        Form::Short => output::write(&format!("{command}\n"))?,
        Form::Json => output::write(&(serde_json::to_string_pretty(&token)? + "\n"))?,
        Form::Yaml => output::write(&serde_yaml::to_string(&token)?)?,
        Form::Text => {
            let who = match (&token.name, token.uses) {
                (Some(name), _) => format!("the machine {name}"),
                (None, 1) => "one machine".into(),
                (None, uses) => format!("{uses} machines"),
            };
            let life = output::age(arguments.ttl);
            ui::say(&format!("type this on the other machine; good for {who}, for {life}:"));
            output::write(&format!("{command}\n"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err("a label is written as KEY=VALUE".into()),
    }
}
