#!/usr/bin/env bash
# The short programs examples/NN_name do on the demo model what their first lines say.
# Usage: examples.sh BUILD_DIR      (with the programs and examples built)
set -euo pipefail
source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build_dir=$(cd "$1" && pwd)
demo="$source_dir/examples/demo"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
model="$scratch/demo.oc"
"$build_dir/ocellus-convert" -q "$demo/demo.pt" -o "$model" --tokenizer "$demo/bpe_demo.txt.gz"

expect() {  # PATTERN PROGRAM ARGUMENT...: a line of the output matches
  local pattern=$1 output
  shift
  output=$("$build_dir/examples/$@")
  printf '%s\n%s\n' "$1" "$output"
  grep -qE "$pattern" <<<"$output" || { echo "no line matches: $pattern"; exit 1; }
}

purple=$demo/pictures/purple-ring.png blue=$demo/pictures/blue-heart.png
expect "^ 1\.000  $purple  $purple$" 01_similarity "$model" "$purple" "$purple" "$blue"
expect "^ {1,2}(9[0-9]|100)\.[0-9]+ %  a blue heart$" 02_zero_shot "$model" "$blue" "a red heart" "a blue heart" "a blue circle"
cp "$demo"/pictures/*.png "$scratch"
mkdir "$scratch/photos" && mv "$scratch"/*.png "$scratch/photos"
for _ in embeds reads; do
  expect . 03_folder_search "$model" "$scratch/photos" "a photo of a purple ring." | tee "$scratch/found"
  sed -n 2p "$scratch/found" | grep -q 'purple-ring.png$' || { echo "another picture is first"; exit 1; }
  [ -s "$scratch/photos/ocellus.vectors" ] || { echo "no index was kept"; exit 1; }
done
# What a folder of photos goes through: folders below it, any name, files that are no pictures, changes, a damaged index.
search() { "$build_dir/examples/03_folder_search" "$model" "$scratch/photos" "a photo of a purple ring." 2>"$scratch/errors"; }
first() { sed -n '1s/^ *[-0-9.]* *//p' "$scratch/found"; }
mkdir "$scratch/photos/below"
mv "$scratch/photos/purple-ring.png" "$scratch/photos/below/"$'a\nring.png'
printf 'no picture' >"$scratch/photos/notes.txt"
search >"$scratch/found"
[ "$(first)" = below/a ] && grep -q 'notes.txt: ' "$scratch/errors" || { echo "moved pictures are not found"; exit 1; }
search | cmp - "$scratch/found"
[ -s "$scratch/errors" ] && { echo "what is no picture was tried twice"; exit 1; }
truncate -s -100 "$scratch/photos/ocellus.vectors"
search | cmp - "$scratch/found"
cp "$blue" "$scratch/photos/below/"$'a\nring.png'
search >"$scratch/found"
[ "$(first)" != below/a ] || { echo "a changed picture kept its vector"; exit 1; }
rm -r "$scratch/photos/below"
search >"$scratch/found"
if grep -q below "$scratch/found"; then echo "a removed picture is found"; exit 1; fi

# The command line: what a line of JSON cannot say stands for U+FFFD as in plain text; links and pipes stay what they are.
printf 'a \xff heart\na \xef\xbf\xbd heart\na \\u heart\n' >"$scratch/plain.txt"
printf '{"text":"a \xff heart"}\n{"text":"a \\ud83d heart"}\n{"text":"a \\\\u heart"}\n' >"$scratch/same.jsonl"
for texts in plain.txt same.jsonl; do "$build_dir/ocellus" tokenize "$model" --texts "$scratch/$texts" >"$scratch/$texts.ids"; done
cmp "$scratch/plain.txt.ids" "$scratch/same.jsonl.ids"
"$build_dir/ocellus" embed "$model" --text "a red heart" -o "$scratch/file.npy"
ln -s /proc/self/fd/1 "$scratch/link.npy"
"$build_dir/ocellus" embed "$model" --text "a red heart" -o "$scratch/link.npy" >"$scratch/through.npy"
"$build_dir/ocellus" embed "$model" --text "a red heart" -o "$scratch/link.npy" | cmp - "$scratch/file.npy"
cmp "$scratch/file.npy" "$scratch/through.npy"
[ -L "$scratch/link.npy" ] || { echo "a link was replaced"; exit 1; }
cp "$demo/pictures/blue-heart.png" "$scratch/good.png"
printf 'P6 1 1 255\n' >"$scratch/cut.ppm"
if "$build_dir/ocellus" classify "$model" --json --image "$scratch/cut.ppm" "$scratch/good.png" --labels "a blue heart,a red heart" \
    >"$scratch/answer.json" 2>"$scratch/errors"; then echo "a picture that is cut off was accepted"; exit 1; fi
grep -q '"error"' "$scratch/answer.json" && grep -q '"label":"a blue heart"' "$scratch/answer.json"
echo "one bad picture leaves the others, broken text is U+FFFD, links stay"
