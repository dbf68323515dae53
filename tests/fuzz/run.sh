#!/usr/bin/env bash
# Runs one fuzzer: over all its seeds (corpus.py), then on from there for some seconds. A crash, a hang of 60 s (by the
# clock, on a machine that may be busy) or more than 1 GiB fails, and the input stays in the working folder.
# Usage: run.sh FUZZER SECONDS
set -euo pipefail
fuzzer=$1
seconds=$2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
topic=$(basename "$fuzzer")
topic=${topic#fuzz_}
seeds=$(mktemp -d)
found=$(mktemp -d)
trap 'rm -rf "$seeds" "$found"' EXIT
python3 "$here/corpus.py" "$topic" "$seeds"
run() { "$fuzzer" "$@" -timeout=60 -rss_limit_mb=1024 -malloc_limit_mb=1024 2>&1 | grep -v "# Uses:" | tail -n 20; }
run "$seeds" -runs=0
# always the same way from the seeds, so that a failure of CI is one here too; other ways: OCELLUS_FUZZ_SEED=0 (at random)
run "$found" "$seeds" -max_total_time="$seconds" -max_len=65536 -seed="${OCELLUS_FUZZ_SEED:-1}"
