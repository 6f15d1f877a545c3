//! pki: to be written.
