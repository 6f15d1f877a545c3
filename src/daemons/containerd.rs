//! containerd: runs the containers. Root, since it mounts, makes namespaces and cgroups.

use std::time::Duration;

use skiff_supervisor::{DaemonSpec, ProbeTiming};

use super::context::{Context, File, Probes};
use super::reading;

pub const NAME: &str = "containerd";
/// Seconds to reach a registry before a pull gives up on that address: a missing image on a node
/// without internet must say so within seconds, not after TCP's minutes.
const REGISTRY_DIAL_TIMEOUT_S: u32 = 5;
/// Importing our images takes a second on a fast disk; an SD card or an emulated processor is
/// given more.
const IMAGES_TIMEOUT: Duration = Duration::from_secs(600);

pub fn spec(context: &Context, probes: &Probes) -> DaemonSpec {
    let config = context.paths.daemon_etc(NAME).join("config.toml");
    reading(context.daemon(NAME, "containerd"), &files(context))
        .args(["--config", &config.to_string_lossy()])
        .env("GOGC", "50")
        .survivor("containerd-shim-runc-v2")
        .readiness(probes.containerd.clone())
        // The probe imports images the first time.
        .probe_timing(ProbeTiming { timeout: IMAGES_TIMEOUT, ..ProbeTiming::default() })
        .build()
}

pub fn files(context: &Context) -> Vec<File> {
    let etc = context.paths.daemon_etc(NAME);
    vec![
        File::new(etc.join("config.toml"), config(context)),
        File::new(etc.join("certs.d/_default/hosts.toml"), registry_default()),
    ]
}

fn registry_default() -> String {
    format!("dial_timeout = \"{REGISTRY_DIAL_TIMEOUT_S}s\"\n")
}

fn config(context: &Context) -> String {
    let paths = &context.paths;
    let build = context.stable_build();
    let quote = |path: &std::path::Path| toml::Value::from(path.to_string_lossy().as_ref());
    format!(
        r#"version = 4
root = {root}
state = {state}
# The host's own containerd keeps its configuration to itself.
imports = []
disabled_plugins = [
  "io.containerd.internal.v1.tracing",
  "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.nri.v1.nri",
  "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.erofs",
  "io.containerd.snapshotter.v1.native",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.differ.v1.erofs",
  "io.containerd.mount-handler.v1.erofs",
  "io.containerd.monitor.container.v1.restart",
  "io.containerd.image-verifier.v1.bindir",
  "io.containerd.internal.v1.opt",
]

[plugins.'io.containerd.server.v1.grpc']
  address = {socket}

[plugins.'io.containerd.server.v1.ttrpc']
  address = {ttrpc}

[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
  disable_snapshot_annotations = true
  max_concurrent_downloads = 3
  image_pull_progress_timeout = "1m"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = {pause}
  [plugins.'io.containerd.cri.v1.images'.registry]
    config_path = {registries}

[plugins.'io.containerd.cri.v1.runtime']
  # True where this process may not lower an OOM score: pods would fail to start otherwise.
  restrict_oom_score_adj = {restrict_oom}
  enable_selinux = false
  enable_criu = false
  netns_mounts_under_state_dir = true
  [plugins.'io.containerd.cri.v1.runtime'.containerd]
    default_runtime_name = "runc"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      runtime_path = {shim}
      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
        BinaryName = {runc}
        SystemdCgroup = false
        # Outside containerd's own cgroup: ending containerd ends no container.
        ShimCgroup = "{cgroup}/shim"
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = [{cni_bin}]
    conf_dir = {cni_conf}
    use_internal_loopback = true

[plugins.'io.containerd.grpc.v1.cri']
  disable_tcp_service = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
"#,
        root = quote(&paths.containerd()),
        state = quote(&paths.containerd_run().join("state")),
        socket = quote(&paths.containerd_socket()),
        ttrpc = quote(&paths.containerd_run().join("ttrpc.sock")),
        pause = toml::Value::from(context.pause_image.as_str()),
        registries = quote(&paths.daemon_etc(NAME).join("certs.d")),
        restrict_oom = context.restrict_oom_score,
        shim = quote(&build.join("bin/containerd-shim-runc-v2")),
        runc = quote(&build.join("bin/runc")),
        cgroup = context.cgroup,
        cni_bin = quote(&build.join("cni")),
        cni_conf = quote(&paths.cni_config()),
    )
}
