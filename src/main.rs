//! `skiff`: hand the arguments over and turn the outcome into an exit code.

fn main() {}
