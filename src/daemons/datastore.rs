//! datastore: keeps the cluster's objects. Unprivileged: it reads and writes its own directory,
//! and answers on a socket that only the control plane's user may open.

use std::time::Duration;

use skiff_supervisor::{DaemonSpec, Probe};

use super::context::Context;

pub const NAME: &str = "datastore";
/// A clean stop writes nothing large; beyond this it hangs.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

pub fn spec(context: &Context) -> DaemonSpec {
    let socket = context.paths.datastore_socket();
    context
        .daemon(NAME, "skiff")
        .args(["datastore", "--dir", &context.paths.datastore().to_string_lossy()])
        .args(["--listen", &format!("unix:{}", socket.display())])
        .user(context.accounts.datastore)
        .readiness(Probe::UnixConnect(socket))
        .stop_timeout(STOP_TIMEOUT)
        .build()
}
