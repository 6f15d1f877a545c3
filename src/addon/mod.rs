//! To be written.

#[derive(Debug, thiserror::Error)]
pub enum AddonError {
    #[error("there is no addon {0}")]
    Unknown(String),
}

pub mod argument {
    pub fn parse(text: &str) -> (String, Vec<(String, String)>) {
        match text.split_once(':') {
            Some((name, value)) => (name.into(), vec![(String::new(), value.into())]),
            None => (text.into(), vec![]),
        }
    }
}
