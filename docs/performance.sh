#!/bin/bash
# Repeats docs/performance.md: measures everything into a folder, as JSON, and draws it.
#
#   docs/performance.sh OUT [DISK] [--quick]
#
# DISK is a folder on a disk; without it only what lies in memory is measured. DISKWIRE names another program than the
# release build. A goal that is missed (exit code 1, with a report) stops nothing; what does not work is told at the end.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

quick=()
places=()
for word in "$@"; do
    if [ "$word" = --quick ]; then quick=(--quick); else places+=("$word"); fi
done
out=${places[0]:?usage: docs/performance.sh OUT [DISK] [--quick]}
disk=${places[1]:-}
mkdir -p "$out"

if [ -z "${DISKWIRE:-}" ]; then
    cargo build --release -p diskwire --manifest-path "$root/Cargo.toml"
    DISKWIRE=$root/target/release/diskwire
fi

broken=()
# measure NAME COMMAND...: the report goes to OUT/NAME.json.
measure() {
    local name=$1
    shift
    echo "== bench $*" >&2
    "$DISKWIRE" bench "$@" "${quick[@]}" --json > "$out/$name.json" || true
    if [ ! -s "$out/$name.json" ]; then
        rm -f "$out/$name.json"
        broken+=("$name")
    fi
}

measure crypto crypto
measure channel channel
measure scaling scaling
measure latency latency --folder /dev/shm
measure idle idle
measure multipath multipath --folder "${disk:-.}"
measure file file --compare --sync
measure small-files small-files --compare --sync
if [ -n "$disk" ]; then
    measure idle-disk idle --folder "$disk"
    measure channel-disk channel --folder "$disk"
    measure channel-disk-2 channel --folder "$disk" --secondaries 2
    measure latency-disk latency --folder "$disk"
    measure file-disk file --compare --sync --folder "$disk"
    measure file-disk-volume file --folder "$disk" --ends /dev/shm
    measure small-files-disk small-files --compare --sync --folder "$disk"
fi

"$DISKWIRE" bench charts --out "$out" "$out"/*.json
if [ ${#broken[@]} -gt 0 ]; then
    echo "not measured: ${broken[*]}" >&2
    exit 1
fi
