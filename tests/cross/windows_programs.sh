#!/usr/bin/env bash
# The programs built for Windows, beside this machine's: the same packed file, embeddings, labels and pictures; file
# names beyond ASCII, wildcards, standard streams, errors.
# Usage: tests/cross/windows_programs.sh DATA FOLDER EMULATOR...     DATA: host.sh's; FOLDER: where the programs are
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
data=$1 folder=$2
shift 2
emulator=("$@") demo=$root/examples/demo work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
greek=$'\xce\xbc\xcf\x80\xce\xbb\xce\xb5 \xce\xba\xce\xb1\xcf\x81\xce\xb4\xce\xb9\xce\xac.png'
cd "$work"

here() { "$root/build/$1" "${@:2}"; }
there() { "${emulator[@]}" "$folder/$1.exe" "${@:2}"; }
same() { cmp "$1" "$2" || { echo "FAILED: $3"; exit 1; }; }

for program in there here; do
  $program ocellus-convert -q "$demo/demo.pt" -o $program.oc --dtype s8 --tokenizer "$demo/bpe_demo.txt.gz" --vision-only \
    --emit-header header.hpp --labels "a ring,a heart"
  mv header.hpp $program.header
done
same there.oc here.oc "the packed file without its text tower"
same there.header here.header "the header for firmware"
there ocellus-convert -q "$demo/demo.pt" -o model.oc --dtype s8 --tokenizer "$demo/bpe_demo.txt.gz"
same model.oc "$data/demo-s8.oc" "the packed file"
cp "$demo/pictures/blue-heart.png" "$greek"
cp "$demo/pictures/purple-ring.png" ring.png
there ocellus embed model.oc --image '*.png' -o there.npy
here ocellus embed "$data/demo-s8.oc" --image ring.png "$greek" -o here.npy
same there.npy here.npy "embeddings, by a wildcard"
there ocellus embed model.oc --image - -o - <ring.png >there.npy
here ocellus embed "$data/demo-s8.oc" --image ring.png -o here.npy
same there.npy here.npy "embeddings, by the standard streams"
for program in there here; do
  $program ocellus classify "$data/demo-s8.oc" --image ring.png "$greek" --labels-file "$demo/labels.txt" --json |
    tr -d '\r' >$program.json
  $program ocellus tokenize "$data/demo-s8.oc" --text "a ${greek%.png}" | tr -d '\r' >$program.ids
  for _ in 1 2; do $program ocellus preprocess "$data/demo-s8.oc" ring.png -o $program.out; done  # the second replaces it
done
same there.json here.json "labels"
same there.ids here.ids "token ids"
same there.out here.out "the prepared picture"
if there ocellus classify model.oc --image nothing.png --labels a,b 2>error; then echo "FAILED: no error"; exit 1; fi
grep -q "nothing.png: no such file" error
