//! kube: to be written.
