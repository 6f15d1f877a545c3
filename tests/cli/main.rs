//! The command as a person sees it: whole screens, exit codes, and what a signal leaves behind.
//!
//! Runs without root and without a node; where a node has to answer, a stand-in speaks the local
//! API with the types of `skiff-api`. When a screen changes on purpose, write the new ones with
//! `INSTA_UPDATE=always cargo test --test cli` and read the difference.

mod archive;
mod backup;
mod completion;
mod data;
mod help;
mod interrupt;
mod merge;
mod place;
mod quorum;
mod recover;
mod reference;
mod sample;
mod settings;
mod stand_in;
mod stopped;
mod terminal;
mod usage;
mod verbs;
