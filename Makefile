# Thin on purpose: what each command does is in xtask. Without arguments this says what there is.
.DEFAULT_GOAL := help
.PHONY: help up test down bench soak verify fix cargo

help:
	@echo 'make up      build Skiff, start a node on this machine, wait until it is ready'
	@echo 'make test    build everything and run every test'
	@echo 'make down    end the node and remove everything but what was built'
	@echo 'make bench   measure a node and its peer, about two hours; ARGS="--short" takes five minutes'
	@echo 'make soak    long forms of tests: beside etcd, simulated, protocol, members, power cuts, renewals, a virtual machine, 512 MiB'
	@echo 'make verify  check format, lints, tests and documentation without writing'
	@echo 'make fix     write what verify would complain about'

up test down bench soak verify fix: cargo
	@cargo run --quiet --package xtask -- $@ $(ARGS)

# The version that builds Skiff is in rust-toolchain.toml.
cargo:
	@command -v cargo >/dev/null || { \
	  echo "error: cargo is not installed; Rust $$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml) builds Skiff (https://rustup.rs)" >&2; \
	  exit 1; }
	@command -v cc >/dev/null || sh xtask/install-compiler.sh
