use std::process::ExitCode;

use skiff_api::KubeconfigRequest;

use crate::cli::{CommandError, Session, output};

/// Life of a kubeconfig when nobody says otherwise, in seconds.
pub const TTL_DEFAULT_S: u64 = 30 * 24 * 3600;

/// Make a kubeconfig for a user with the rights of its groups
///
/// The certificate within is the user's own and lives as long as --ttl says. A new user may do
/// nothing until a RoleBinding names the user or one of its groups:
///
///   skiff kubeconfig --user ann --group viewers > ann.yaml
///   skiff kubectl create clusterrolebinding viewers --clusterrole view --group viewers
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Name that RBAC sees
    #[arg(long, value_name = "NAME")]
    user: String,

    /// Group that RBAC sees (can be repeated)
    #[arg(long = "group", value_name = "NAME")]
    groups: Vec<String>,

    /// Life of the certificate: 90m, 12h, 30d
    #[arg(long, default_value = "30d", value_parser = seconds, value_name = "TIME")]
    ttl: u64,

    /// Address of the API server to write [default: the node's own]
    #[arg(long, value_name = "URL")]
    server: Option<String>,
}

pub(super) async fn run(
    arguments: Arguments,
    session: &Session,
) -> Result<ExitCode, CommandError> {
    let Arguments { user, groups, ttl, server } = arguments;
    output::write(&request(session, &user, groups, ttl, server).await?)?;
    Ok(ExitCode::SUCCESS)
}

/// Asks skiffd for the file's text.
pub(super) async fn request(
    session: &Session,
    user: &str,
    groups: Vec<String>,
    ttl_s: u64,
    server: Option<String>,
) -> Result<String, CommandError> {
    let request = KubeconfigRequest { user: user.into(), groups, ttl_s, server };
    Ok(session.client().post("/v1/kubeconfig", &request).await?)
}

/// `90m`, `12h`, `30d`, `3600` or `3600s` in seconds.
fn seconds(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(place) => text.split_at(place),
        None => (text, "s"),
    };
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => return Err(format!("{unit:?} is not a unit of time: use s, m, h or d")),
    };
    let count: u64 = digits.parse().map_err(|_| format!("{text:?} is not a time"))?;
    count.checked_mul(factor).ok_or_else(|| format!("{text} is too long"))
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn times_are_read_with_their_units() {
        assert_eq!(seconds("90m"), Ok(5400));
        assert_eq!(seconds("2d"), Ok(172_800));
        assert_eq!(seconds("5"), Ok(5));
        assert!(seconds("5w").is_err());
        assert!(seconds("h").is_err());
        assert!(seconds("99999999999999999999d").is_err());
    }
}
