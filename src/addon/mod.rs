//! To be written.

#[derive(Debug, thiserror::Error)]
pub enum AddonError {
    #[error("there is no addon {0}")]
    Unknown(String),
}
