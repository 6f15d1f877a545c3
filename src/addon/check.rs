//! Health: what the objects of an addon say of themselves. Pure but for [`wait`].

use std::time::Duration;

use kube::ResourceExt;
use kube::api::DynamicObject;
use serde_json::Value;

use super::definition::{Definition, HealthCondition};
use crate::kube::{Resources, Selection, TypeRef, WaitError, wait_until};

/// Where to look for one health condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub condition: HealthCondition,
    pub types: TypeRef,
    pub namespace: String,
    pub selection: Selection,
}

/// The checks of an addon. A Service is healthy when something answers behind it, so its
/// EndpointSlices are looked at.
pub fn checks(definition: &Definition) -> Vec<Check> {
    let check = |condition: &HealthCondition| {
        let (types, selection) = if condition.kind == "Service" {
            let labels = format!("kubernetes.io/service-name={}", condition.name);
            (TypeRef::new("discovery.k8s.io/v1", "EndpointSlice"), Selection::Labels(labels))
        } else {
            let version = condition.api_version().unwrap_or("v1");
            (TypeRef::new(version, &condition.kind), Selection::Name(condition.name.clone()))
        };
        let namespace = condition.namespace.as_ref().unwrap_or(&definition.namespace);
        Check { condition: condition.clone(), types, namespace: namespace.clone(), selection }
    };
    definition.health.iter().map(check).collect()
}

impl Check {
    /// How a person calls what is looked at.
    pub fn what(&self) -> String {
        format!("{} {}", self.condition.kind, self.condition.name)
    }

    /// Whether an object is one of those that decide.
    pub fn selects(&self, object: &DynamicObject) -> bool {
        let service = "kubernetes.io/service-name";
        match &self.selection {
            Selection::Name(name) => object.name_any() == *name,
            Selection::Labels(_) => {
                object.labels().get(service).is_some_and(|name| *name == self.condition.name)
            }
        }
    }

    /// Content, or a sentence that says what is missing.
    pub fn judge(&self, objects: &[&DynamicObject]) -> Result<(), String> {
        if self.condition.kind == "Service" {
            return judge_endpoints(&self.condition.name, objects);
        }
        let what = self.what();
        let Some(object) = objects.first() else { return Err(format!("{what} is not there")) };
        if object.metadata.deletion_timestamp.is_some() {
            return Err(format!("{what} is being deleted"));
        }
        let judged = match self.condition.kind.as_str() {
            "Deployment" => judge_deployment(object),
            "DaemonSet" => judge_daemon_set(object),
            "StatefulSet" => judge_stateful_set(object),
            "Job" => judge_condition(object, "Complete"),
            "APIService" => judge_condition(object, "Available"),
            "CustomResourceDefinition" => judge_condition(object, "Established"),
            _ => Ok(()),
        };
        let asked = self.condition.condition.as_deref();
        judged
            .and_then(|()| asked.map_or(Ok(()), |asked| judge_condition(object, asked)))
            .map_err(|problem| format!("{what}: {problem}"))
    }
}

/// Waits until a check holds.
pub async fn wait(
    resources: &Resources,
    check: &Check,
    bound: Duration,
    tell: impl FnMut(&str),
) -> Result<(), WaitError> {
    let what = check.what();
    let unknown = |last: String| WaitError { what: what.clone(), bound, last };
    let api = resources
        .api(&check.types, Some(&check.namespace))
        .map_err(|error| unknown(error.to_string()))?;
    wait_until(api, &check.selection, &what, bound, |objects| check.judge(objects), tell).await
}

fn number(object: &DynamicObject, pointer: &str) -> Option<i64> {
    object.data.pointer(pointer).and_then(Value::as_i64)
}

/// The controller has not looked at the object since it was changed.
fn judge_observed(object: &DynamicObject) -> Result<(), String> {
    let observed = number(object, "/status/observedGeneration").unwrap_or(0);
    if object.metadata.generation.is_some_and(|generation| observed < generation) {
        return Err("its controller has not seen it yet".into());
    }
    Ok(())
}

fn judge_deployment(object: &DynamicObject) -> Result<(), String> {
    judge_observed(object)?;
    let wanted = number(object, "/spec/replicas").unwrap_or(1);
    let status = |field| number(object, &format!("/status/{field}")).unwrap_or(0);
    if let Some(message) = failed_progress(object) {
        return Err(message);
    }
    judge_count("updated", status("updatedReplicas"), wanted)?;
    judge_count("available", status("availableReplicas"), wanted)?;
    if status("replicas") > wanted {
        return Err("former pods are still ending".into());
    }
    judge_condition(object, "Available")
}

fn judge_daemon_set(object: &DynamicObject) -> Result<(), String> {
    judge_observed(object)?;
    let status = |field| number(object, &format!("/status/{field}")).unwrap_or(0);
    let wanted = status("desiredNumberScheduled");
    judge_count("updated", status("updatedNumberScheduled"), wanted)?;
    judge_count("available", status("numberAvailable"), wanted)
}

fn judge_stateful_set(object: &DynamicObject) -> Result<(), String> {
    judge_observed(object)?;
    let wanted = number(object, "/spec/replicas").unwrap_or(1);
    let status = |field| number(object, &format!("/status/{field}")).unwrap_or(0);
    judge_count("updated", status("updatedReplicas"), wanted)?;
    judge_count("ready", status("readyReplicas"), wanted)
}

fn judge_count(word: &str, now: i64, wanted: i64) -> Result<(), String> {
    if now < wanted {
        let pods = if wanted == 1 { "pod is" } else { "pods are" };
        return Err(format!("{now} of {wanted} {pods} {word}"));
    }
    Ok(())
}

fn condition<'a>(object: &'a DynamicObject, name: &str) -> Option<&'a Value> {
    let conditions = object.data.pointer("/status/conditions")?.as_array()?;
    conditions.iter().find(|condition| condition["type"] == name)
}

fn judge_condition(object: &DynamicObject, name: &str) -> Result<(), String> {
    let Some(found) = condition(object, name) else {
        return Err(format!("it has not said whether it is {name}"));
    };
    if found["status"] == "True" {
        return Ok(());
    }
    let said = found["message"].as_str().or(found["reason"].as_str()).unwrap_or_default();
    Err(if said.is_empty() { format!("it is not {name}") } else { one_line(said) })
}

/// The Deployment gave up: nothing came of it within its own deadline.
fn failed_progress(object: &DynamicObject) -> Option<String> {
    let progressing = condition(object, "Progressing")?;
    (progressing["status"] == "False")
        .then(|| one_line(progressing["message"].as_str().unwrap_or("it makes no progress")))
}

fn judge_endpoints(service: &str, slices: &[&DynamicObject]) -> Result<(), String> {
    let endpoints = slices
        .iter()
        .filter_map(|slice| slice.data.pointer("/endpoints")?.as_array())
        .flatten()
        .collect::<Vec<_>>();
    // Absent means ready, says the API.
    let ready = |endpoint: &&&Value| {
        endpoint.pointer("/conditions/ready").and_then(Value::as_bool).unwrap_or(true)
    };
    if endpoints.iter().any(|endpoint| ready(&endpoint)) {
        return Ok(());
    }
    Err(match endpoints.len() {
        0 => format!("Service {service}: no pod is behind it"),
        _ => format!("Service {service}: no pod behind it is ready"),
    })
}

/// What others say, on one line and no longer than a screen shows.
pub fn one_line(text: &str) -> String {
    const LENGTH_MAX: usize = 300;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LENGTH_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(kind: &str, condition: Option<&str>) -> Check {
        let condition = condition.map(|c| format!("condition = '{c}'\n")).unwrap_or_default();
        let text = format!(
            "description = 'd'\nversion = '1'\n[[health]]\nkind = '{kind}'\nname = 'x'\n\
             api-version = 'v1'\n{condition}"
        );
        checks(&Definition::parse("sample", &text, &[]).unwrap()).remove(0)
    }

    fn object(value: Value) -> DynamicObject {
        let mut base = json!({ "apiVersion": "v1", "kind": "X", "metadata": { "name": "x" } });
        for (key, item) in value.as_object().unwrap() {
            base[key] = item.clone();
        }
        serde_json::from_value(base).unwrap()
    }

    fn deployment(updated: i64, available: i64, observed: i64) -> DynamicObject {
        object(json!({
            "metadata": { "name": "x", "generation": 2 },
            "spec": { "replicas": 2 },
            "status": {
                "observedGeneration": observed,
                "replicas": 2,
                "updatedReplicas": updated,
                "availableReplicas": available,
                "conditions": [{ "type": "Available", "status": "True" }],
            },
        }))
    }

    #[test]
    fn a_deployment_is_healthy_when_its_last_state_runs() {
        let judge = |object| check("Deployment", None).judge(&[&object]);
        assert_eq!(judge(deployment(2, 2, 2)), Ok(()));
        let said = |object| judge(object).unwrap_err();
        assert_eq!(said(deployment(1, 2, 2)), "Deployment x: 1 of 2 pods are updated");
        assert_eq!(said(deployment(2, 0, 2)), "Deployment x: 0 of 2 pods are available");
        assert_eq!(said(deployment(2, 2, 1)), "Deployment x: its controller has not seen it yet");
    }

    #[test]
    fn what_is_not_there_is_not_healthy() {
        let judged = check("Deployment", None).judge(&[]);
        assert_eq!(judged, Err("Deployment x is not there".into()));
    }

    #[test]
    fn a_service_needs_a_ready_endpoint() {
        let check = check("Service", None);
        let slice =
            |ready: bool| object(json!({ "endpoints": [{ "conditions": { "ready": ready } }] }));
        assert_eq!(check.judge(&[&slice(false), &slice(true)]), Ok(()));
        let said = check.judge(&[&slice(false)]).unwrap_err();
        assert_eq!(said, "Service x: no pod behind it is ready");
        assert_eq!(check.judge(&[]).unwrap_err(), "Service x: no pod is behind it");
    }

    #[test]
    fn any_condition_of_any_kind_can_be_asked_for() {
        let check = check("Widget", Some("Blue"));
        let with = |status: &str| {
            let conditions = json!([{ "type": "Blue", "status": status, "message": "it\nis red" }]);
            object(json!({ "status": { "conditions": conditions } }))
        };
        assert_eq!(check.judge(&[&with("True")]), Ok(()));
        assert_eq!(check.judge(&[&with("False")]).unwrap_err(), "Widget x: it is red");
    }
}
