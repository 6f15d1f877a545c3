//! The route to the Services' addresses.
//!
//! The packet filter rewrites a Service's address after the kernel has looked for a route, so
//! there must be one, and a machine in a cellar has no default route. It leads to the loopback
//! link: what no rule rewrites ends there instead of leaving the machine.

use std::net::IpAddr;
use std::process::Command;

/// Adds the route or changes its source; safe to repeat.
pub fn ensure(service_cidr: &str, source: IpAddr) -> Result<(), String> {
    run(&["route", "replace", service_cidr, "dev", "lo", "src", &source.to_string()])
}

/// Removes it; one that is not there is no error.
pub fn remove(service_cidr: &str) {
    let _ = run(&["route", "delete", service_cidr, "dev", "lo"]);
}

fn run(args: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(args).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}
