//! One step of confinement a file; their order is `crate::run`.

pub(crate) mod bounding;
pub(crate) mod capabilities;
pub(crate) mod cgroups;
pub(crate) mod descriptors;
pub(crate) mod execute;
pub(crate) mod files;
pub(crate) mod huge_pages;
pub(crate) mod limits;
pub(crate) mod oom_score;
pub(crate) mod privileges;
pub(crate) mod session;
pub(crate) mod timer_slack;
pub(crate) mod user;
