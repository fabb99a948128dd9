#!/bin/sh
# Starts the server from a file of settings, where there is no systemd.
#
#   sh infra/systemd/serve.sh infra/systemd/framebank-serve.env     # in the foreground; Ctrl-C ends it
#   framebank serve --model model --port 8000                       # what it runs
#
# FRAMEBANK names the command where it is not on the PATH.
set -eu

if [ $# -ne 1 ] || [ ! -r "$1" ]; then
    echo "usage: serve.sh SETTINGS" >&2
    exit 2
fi
read_setting() {
    sed -n "s/^$1=//p" "$settings" | tail -n 1
}
settings=$1
model=$(read_setting MODEL)
port=$(read_setting PORT)
options=$(read_setting OPTIONS)
if [ -z "$model" ]; then
    echo "serve.sh: $settings sets no MODEL" >&2
    exit 2
fi
# Options are words, as systemd has them.
# shellcheck disable=SC2086
exec "${FRAMEBANK:-framebank}" serve --model "$model" --port "${port:-8000}" $options
