//! Which request does what.

use std::sync::Arc;

use http::{Method, StatusCode};
use hyper::body::Bytes;
use skiff_api::{CredentialRequest, EnableRequest, KubeconfigRequest, Progress, ServiceAction};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::WatchStream;

use super::server::{Answer, Refusal, error_body, json, json_lines, json_work, read, unknown};
use super::{Node, Order, certificates, cluster, settings};
use crate::addon;

/// Answers one request. Paths are those of the typed client.
pub async fn route(node: &Arc<Node>, method: &Method, path: &str, body: Bytes) -> Answer {
    let words: Vec<&str> = path.trim_matches('/').split('/').collect();
    let Some(("v1", words)) = words.split_first().map(|(first, rest)| (*first, rest)) else {
        return Err(unknown(method, path));
    };
    if let ["kubeconfig" | "credential" | "addons" | "repositories", ..] = words
        && let Some(cluster) = node.worker_of()
    {
        return Err(cluster::routes::on_worker(&cluster));
    }
    match (method.as_str(), words) {
        ("GET", ["status"]) => Ok(json(&node.status())),
        ("GET", ["watch"]) => Ok(json_lines(WatchStream::new(node.watch()))),
        ("GET", ["version"]) => Ok(json(&node.version())),
        ("GET", ["settings"]) => Ok(json(&node.settings())),
        ("POST", ["settings"]) => settings::set(node, read(&body)?).await,
        ("GET", ["services"]) => Ok(json(&node.services_with_usage().await)),
        ("GET", ["certificates"]) => Ok(json(&certificates::show(node).await)),
        ("POST", ["certificates", "rotate"]) => Ok(rotate(node)),
        ("GET", ["addons"]) => Ok(json(&node.status().addons)),
        ("GET", ["addons", name]) => addon(node, name),
        ("GET", ["repositories"]) => refuse(node.addons.repositories().await),
        ("POST", ["repositories", name]) => {
            refuse(node.addons.put_repository(name, &read(&body)?).await)
        }
        ("POST", ["repositories", name, "remove"]) => {
            refuse(node.addons.remove_repository(name).await)
        }
        ("GET", ["addons", name, "diff"]) => diff(node, name).await,
        ("POST", ["services", name, action]) => service(node, name, action).await,
        ("POST", ["kubeconfig"]) => kubeconfig(node, &read(&body)?),
        ("POST", ["credential"]) => credential(node, &read(&body)?),
        ("POST", ["addons", name, "enable"]) => enable(node, name, read(&body)?),
        ("POST", ["addons", name, "disable"]) => disable(node, name, read(&body)?),
        ("POST", ["addons", name, "upgrade"]) => upgrade(node, name, read(&body)?),
        ("GET", ["authorities"]) => Ok(json(&cluster::rotation_of(node))),
        ("POST", ["authorities", action]) => {
            cluster::routes::authorities(node, action, &body).await
        }
        (_, ["cluster", rest @ ..]) => cluster::routes::route(node, method, rest, &body).await,
        ("POST", ["stop"]) => Ok(order(node, |reply| Order::Stop { reply })),
        ("POST", ["restart"]) => Ok(order(node, |reply| Order::Restart { reply })),
        ("POST", ["reset"]) => Ok(order(node, |reply| Order::Reset { reply })),
        ("POST", ["detach"]) => Ok(order(node, |reply| Order::Detach { reply })),
        _ => Err(unknown(method, path)),
    }
}

fn addon(node: &Node, name: &str) -> Answer {
    node.addon(name).map(|addon| json(&addon)).map_err(|error| {
        let refusal = Refusal::new(StatusCode::NOT_FOUND, error.to_string());
        refusal.hint(error.hint().unwrap_or_else(|| "skiff addons list".into()))
    })
}

async fn diff(node: &Node, name: &str) -> Answer {
    refuse(node.addon_diff(name).await)
}

/// An answer about addons, or why there is none and what to type.
fn refuse<T: serde::Serialize>(outcome: Result<T, addon::AddonError>) -> Answer {
    outcome.map(|answer| json(&answer)).map_err(|error| {
        let refusal = Refusal::from_error(&error);
        match error.hint() {
            Some(hint) => refusal.hint(hint),
            None => refusal,
        }
    })
}

async fn service(node: &Node, name: &str, action: &str) -> Answer {
    let action = match action {
        "start" => ServiceAction::Start,
        "stop" => ServiceAction::Stop,
        "restart" => ServiceAction::Restart,
        _ => return Err(Refusal::new(StatusCode::NOT_FOUND, format!("cannot {action} a service"))),
    };
    let known = node.status().services;
    if !known.iter().any(|service| service.name == name) {
        let message = format!("there is no service {name}");
        return Err(Refusal::new(StatusCode::NOT_FOUND, message).hint("skiff services"));
    }
    node.act_on_service(name, action)
        .await
        .map_err(|reason| Refusal::new(StatusCode::CONFLICT, reason))?;
    Ok(json(&node.status().services.into_iter().find(|service| service.name == name)))
}

fn kubeconfig(node: &Node, request: &KubeconfigRequest) -> Answer {
    node.kubeconfig(request).map(|text| json(&text)).map_err(|e| Refusal::from_error(&e))
}

fn credential(node: &Node, request: &CredentialRequest) -> Answer {
    node.credential(request)
        .map(|certificate| json(&certificate))
        .map_err(|e| Refusal::from_error(&e))
}

fn enable(node: &Arc<Node>, name: &str, request: EnableRequest) -> Answer {
    let (node, name) = (node.clone(), name.to_owned());
    Ok(json_work(|progress| async move {
        let outcome = node.enable(&name, &request, &reporter(&progress)).await;
        finish(&progress, outcome).await;
    }))
}

fn disable(node: &Arc<Node>, name: &str, request: EnableRequest) -> Answer {
    let (node, name) = (node.clone(), name.to_owned());
    Ok(json_work(|progress| async move {
        let outcome = node.disable(&name, &request, &reporter(&progress)).await;
        finish(&progress, outcome).await;
    }))
}

fn upgrade(node: &Arc<Node>, name: &str, request: EnableRequest) -> Answer {
    let (node, name) = (node.clone(), name.to_owned());
    Ok(json_work(|progress| async move {
        let outcome = node.upgrade_addon(&name, &request, &reporter(&progress)).await;
        finish(&progress, outcome).await;
    }))
}

fn rotate(node: &Arc<Node>) -> http::Response<super::server::Body> {
    let node = node.clone();
    json_work(|progress| async move {
        let last = match certificates::rotate(&node, &reporter(&progress)).await {
            Ok(message) => Progress::Done { message, changed: true },
            Err(error) => Progress::Failed {
                error: skiff_api::ErrorBody { hint: error.hint(), ..error_body(&error) },
            },
        };
        // Nobody reads when the client went away; the work is done all the same.
        let _ = progress.send(last).await;
    })
}

/// Drops a line when the reader is too slow: the next one tells more anyway.
fn reporter(progress: &mpsc::Sender<Progress>) -> impl Fn(Progress) + Send + Sync + use<> {
    let progress = progress.clone();
    move |line| drop(progress.try_send(line))
}

async fn finish(progress: &mpsc::Sender<Progress>, outcome: Result<Progress, addon::AddonError>) {
    let last = outcome.unwrap_or_else(|error| {
        let body = skiff_api::ErrorBody { hint: error.hint(), ..error_body(&error) };
        Progress::Failed { error: body }
    });
    // Nobody reads when the client went away; the work is done all the same.
    let _ = progress.send(last).await;
}

/// Hands an order to skiffd's main task, which reports on the same stream.
fn order(
    node: &Arc<Node>,
    make: impl FnOnce(mpsc::Sender<Progress>) -> Order,
) -> http::Response<super::server::Body> {
    let (reply, receiver) = mpsc::channel(64);
    if node.orders.try_send(make(reply.clone())).is_err() {
        let error = skiff_api::ErrorBody {
            message: "skiffd is already carrying out another order".into(),
            causes: vec![],
            hint: Some("skiff status".into()),
        };
        let _ = reply.try_send(Progress::Failed { error });
    }
    json_lines(until_last(receiver))
}

/// Ends with the last line and not with its sender, who waits for that before skiffd ends.
fn until_last(receiver: mpsc::Receiver<Progress>) -> impl Stream<Item = Progress> {
    futures::stream::unfold(Some(receiver), async |receiver| {
        let mut receiver = receiver?;
        let line = receiver.recv().await?;
        let rest = (!line.is_last()).then_some(receiver);
        Some((line, rest))
    })
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio_stream::StreamExt;

    use super::*;

    #[tokio::test]
    async fn whoever_carries_out_an_order_knows_when_its_last_line_was_taken() {
        let (reply, receiver) = mpsc::channel(4);
        let mut lines = pin!(until_last(receiver));
        let step = Progress::Step { message: "it goes on".into() };
        let last = Progress::Done { message: "it is done".into(), changed: true };
        for line in [&step, &last] {
            reply.send(line.clone()).await.unwrap();
            assert!(!reply.is_closed(), "nobody has it yet");
        }
        assert_eq!(lines.next().await, Some(step));
        assert!(!reply.is_closed());
        assert_eq!(lines.next().await, Some(last));
        assert!(reply.is_closed());
        assert_eq!(lines.next().await, None);
    }
}
