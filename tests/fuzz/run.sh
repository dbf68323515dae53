#!/usr/bin/env bash
# Runs one fuzzer for some seconds: first over its whole corpus, then on from there. A crash, a hang of 30 s (by the
# clock, on a machine that may be busy) or more than 1 GiB fails, and the input stays in the working folder.
# Usage: run.sh FUZZER SECONDS
#
# The corpus of fuzz_<topic> is what corpus.py finds for <topic> in the data folder (OCELLUS_SHARED) and in
# tests/fuzz/corpus/<topic>/, if there is one.
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
[ ! -d "$here/corpus/$topic" ] || cp "$here/corpus/$topic"/* "$seeds"
[ -s "$here/$topic.dict" ] && dict=(-dict="$here/$topic.dict") || dict=()
"$fuzzer" "$seeds" -runs=0 -timeout=30 -rss_limit_mb=1024 -malloc_limit_mb=1024 -print_final_stats=0 2>&1 | grep -v "# Uses:" | tail -n 20
"$fuzzer" "$found" "$seeds" -max_total_time="$seconds" -timeout=30 -rss_limit_mb=1024 -malloc_limit_mb=1024 \
  -max_len=65536 "${dict[@]}" 2>&1 | grep -v "# Uses:" | tail -n 20
