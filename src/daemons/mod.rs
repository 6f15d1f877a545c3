//! One file per daemon: what it needs, waits for, writes, its arguments, user and health.
//!
//! Everything here is a function of a [`Context`]: the files a daemon reads and the specification
//! that the supervisor gets. Nothing is written and nothing is started here.

pub mod containerd;
mod context;
pub mod datastore;
pub mod kube_control;
pub mod kube_node;
mod yaml;

pub use context::{Context, File, Probes};

use skiff_supervisor::{DaemonSpec, DaemonSpecBuilder};

/// Every daemon of a node that runs the control plane, in no particular order: `needs` orders them.
pub fn specs(context: &Context, probes: &Probes) -> Vec<DaemonSpec> {
    vec![
        datastore::spec(context),
        containerd::spec(context, probes),
        kube_control::spec(context, probes),
        kube_node::spec(context, probes),
    ]
}

/// Every file that the daemons read and that is made from the configuration.
pub fn files(context: &Context) -> Vec<File> {
    [containerd::files(context), kube_control::files(context), kube_node::files(context)].concat()
}

/// Adds a daemon's files to its specification, so that it restarts when one of them changes.
fn reading(builder: DaemonSpecBuilder, files: &[File]) -> DaemonSpecBuilder {
    files
        .iter()
        .fold(builder, |builder, file| builder.input(file.path.to_string_lossy(), &file.content))
}
