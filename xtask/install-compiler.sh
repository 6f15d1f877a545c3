#!/bin/sh
# The one package that must be there before the rest of the set-up can be
# built: Rust programs are linked by a C compiler.
set -eu

if ! command -v apt-get >/dev/null; then
	echo 'error: no C compiler is installed, and Rust programs are linked with it' >&2
	exit 1
fi
if [ "$(id -u)" != 0 ]; then
	echo 'error: no C compiler is installed; as root run: apt-get install build-essential' >&2
	exit 1
fi
echo '==> installing a C compiler: build-essential (usually 40 s)' >&2
export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet --quiet
apt-get install --quiet --quiet --yes --no-install-recommends build-essential
