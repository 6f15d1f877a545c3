//! OCI archives from built files: no container tool, no network, the same bytes every time.

mod archive;
mod tar;

pub use archive::{ImageFile, build_archive, image_digest};
