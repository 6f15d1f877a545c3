//! Orders: of addons by their needs, of objects by their kinds. Pure.

use std::collections::BTreeMap;

/// Why addons cannot be put in an order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    #[error("there is no addon {name}{}", needed_by(.by))]
    Missing { name: String, by: Option<String> },
    #[error("addons need each other in a circle: {}", .0.join(" -> "))]
    Circle(Vec<String>),
}

fn needed_by(by: &Option<String>) -> String {
    by.as_ref().map(|by| format!(", which {by} needs")).unwrap_or_default()
}

/// The addon and all that it needs, each after what it needs itself.
pub fn order_needs(
    name: &str,
    needs: &BTreeMap<String, Vec<String>>,
) -> Result<Vec<String>, OrderError> {
    let mut order = Vec::new();
    visit(name, needs, &mut Vec::new(), &mut order)?;
    Ok(order)
}

fn visit(
    name: &str,
    needs: &BTreeMap<String, Vec<String>>,
    path: &mut Vec<String>,
    order: &mut Vec<String>,
) -> Result<(), OrderError> {
    if order.iter().any(|done| done == name) {
        return Ok(());
    }
    if let Some(at) = path.iter().position(|passed| passed == name) {
        let mut circle = path[at..].to_vec();
        circle.push(name.into());
        return Err(OrderError::Circle(circle));
    }
    let Some(direct) = needs.get(name) else {
        return Err(OrderError::Missing { name: name.into(), by: path.last().cloned() });
    };
    path.push(name.into());
    for need in direct {
        visit(need, needs, path, order)?;
    }
    path.pop();
    order.push(name.into());
    Ok(())
}

/// Names that are near a mistyped one, nearest first, three at most.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    const DISTANCE_MAX: usize = 3;
    let mut near: Vec<(usize, &str)> = known
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, candidate)| {
            *distance <= DISTANCE_MAX.min(candidate.len() / 2) || candidate.starts_with(name)
        })
        .collect();
    near.sort();
    near.into_iter().take(3).map(|(_, candidate)| candidate).collect()
}

/// Edits of one character that lead from one word to the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut before = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = before + usize::from(x != *y);
            before = row[j + 1];
            row[j + 1] = change.min(before + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// When an object of a kind is applied: lower ranks first. Removal goes the other way round.
/// Whatever is not named comes after what it may need and before what runs it.
pub fn rank(kind: &str) -> u8 {
    match kind {
        "Namespace" => 0,
        "CustomResourceDefinition" => 1,
        "PriorityClass" | "RuntimeClass" | "StorageClass" | "IngressClass" | "GatewayClass" => 2,
        "ServiceAccount" => 3,
        "Role" | "ClusterRole" => 4,
        "RoleBinding" | "ClusterRoleBinding" => 5,
        "NetworkPolicy" | "ResourceQuota" | "LimitRange" => 6,
        "ConfigMap" | "Secret" => 7,
        "PersistentVolume" | "PersistentVolumeClaim" => 8,
        "Service" => 9,
        "Deployment" | "DaemonSet" | "StatefulSet" | "ReplicaSet" => 11,
        "Pod" | "Job" | "CronJob" => 12,
        "HorizontalPodAutoscaler" | "PodDisruptionBudget" => 13,
        // These make the API server call a workload: only when there is one.
        "APIService" | "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration" => 14,
        _ => 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(pairs: &[(&str, &[&str])]) -> BTreeMap<String, Vec<String>> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        pairs.iter().map(|(name, direct)| ((*name).to_owned(), owned(direct))).collect()
    }

    #[test]
    fn what_is_needed_comes_first_and_once() {
        let table = needs(&[("a", &["b", "c"]), ("b", &["d"]), ("c", &["d"]), ("d", &[])]);
        assert_eq!(order_needs("a", &table).unwrap(), ["d", "b", "c", "a"]);
    }

    #[test]
    fn a_circle_is_shown_as_one() {
        let table = needs(&[("a", &["b"]), ("b", &["c"]), ("c", &["b"])]);
        let error = order_needs("a", &table).unwrap_err();
        assert_eq!(error.to_string(), "addons need each other in a circle: b -> c -> b");
    }

    #[test]
    fn a_missing_need_is_named_with_who_needs_it() {
        let table = needs(&[("a", &["gone"])]);
        let error = order_needs("a", &table).unwrap_err();
        assert_eq!(error.to_string(), "there is no addon gone, which a needs");
    }

    #[test]
    fn mistyped_names_find_their_neighbours() {
        let known = ["dns", "ingress", "storage", "metrics", "registry"];
        assert_eq!(nearest("ingres", known.into_iter()), ["ingress"]);
        assert_eq!(nearest("dsn", known.into_iter()), Vec::<&str>::new());
        assert_eq!(nearest("metric", known.into_iter()), ["metrics"]);
        assert!(nearest("banana", known.into_iter()).is_empty());
    }

    #[test]
    fn accounts_come_before_roles_before_workloads() {
        let mut kinds =
            ["Deployment", "Widget", "ConfigMap", "Namespace", "Role", "ServiceAccount"];
        kinds.sort_by_key(|kind| rank(kind));
        let sorted = ["Namespace", "ServiceAccount", "Role", "ConfigMap", "Widget", "Deployment"];
        assert_eq!(kinds, sorted);
    }
}
