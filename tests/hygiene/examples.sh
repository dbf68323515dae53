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

# Arguments reach it as they were given, "-" is stdin or stdout, an answer that could not be printed is an error.
printf '[a, heart]\n[]\n' >"$scratch/brackets.txt"
"$build_dir/ocellus" tokenize "$model" --text "[a, heart]" "[]" >"$scratch/brackets.ids"
"$build_dir/ocellus" tokenize "$model" --texts - <"$scratch/brackets.txt" | cmp - "$scratch/brackets.ids"
"$build_dir/ocellus" tokenize "$model" "--text=[a, heart]" "--text=[]" | cmp - "$scratch/brackets.ids"
"$build_dir/ocellus" embed "$model" --text "a red heart" -o - | cmp - "$scratch/file.npy"
"$build_dir/ocellus" embed "$model" --image "$blue" -o "$scratch/blue.npy"
# shellcheck disable=SC2002  # a pipe, not a file
cat "$blue" | "$build_dir/ocellus" embed "$model" --image - -o - | cmp - "$scratch/blue.npy"
printf '%s\0' "$blue" | "$build_dir/ocellus" embed "$model" --images - -o - | cmp - "$scratch/blue.npy"
printf '%s\n\n' "$blue" >"$scratch/paths.txt"
"$build_dir/ocellus" embed "$model" --images "$scratch/paths.txt" -o - | cmp - "$scratch/blue.npy"
"$build_dir/ocellus" classify "$model" --images "$scratch/paths.txt" --labels "a blue heart,a red heart" --json >"$scratch/answer.json"
grep -q '"label":"a blue heart"' "$scratch/answer.json"
code() {  # EXPECTED PATTERN COMMAND...: the exit code, and the one line on stderr
  local expected=$1 pattern=$2 got=0
  shift 2
  "$@" 2>"$scratch/errors" || got=$?
  [ "$got" -eq "$expected" ] && grep -qE "$pattern" "$scratch/errors" && [ "$(wc -l <"$scratch/errors")" -eq 1 ] ||
    { echo "$* gives $got: $(cat "$scratch/errors")" >&2; exit 1; }
}
code 1 "standard output" "$build_dir/ocellus" tokenize "$model" --text a >/dev/full
code 1 "standard output" "$build_dir/ocellus-convert" --help >/dev/full
code 2 "exactly one of" "$build_dir/ocellus" embed "$model" --images "$scratch/paths.txt" --text a -o "$scratch/x.npy"
code 2 "give pictures by" "$build_dir/ocellus" classify "$model" --labels a
code 1 "names no files" "$build_dir/ocellus" classify "$model" --images /dev/null --labels a
code 2 "nonsense: no such command" "$build_dir/ocellus" nonsense
code 2 "model is required: it stands before" "$build_dir/ocellus" embed --text a "$model" -o "$scratch/x.npy"
code 1 "cannot be written: No such file" "$build_dir/ocellus" embed "$model" --image "$scratch/none.png" -o "$scratch/none/x.npy"

# The converter writes behind links and refuses what a rename would replace.
convert() { "$build_dir/ocellus-convert" -q "$demo/demo.pt" --tokenizer "$demo/bpe_demo.txt.gz" -o "$1"; }
mkdir "$scratch/out" && printf old >"$scratch/out/model.oc"
ln -s out/model.oc "$scratch/link.oc" && mkfifo "$scratch/pipe"
convert "$scratch/link.oc" && cmp "$scratch/out/model.oc" "$model" && [ -L "$scratch/link.oc" ]
code 1 "pipe: cannot be written: it is no regular file" convert "$scratch/pipe"
code 1 "out: cannot be written: it is a folder" convert "$scratch/out"
[ -p "$scratch/pipe" ] && [ "$(ls -A "$scratch/out")" = model.oc ] || { echo "an output was replaced, or something left"; exit 1; }

cp "$demo/pictures/blue-heart.png" "$scratch/good.png"
printf 'P6 1 1 255\n' >"$scratch/cut.ppm"
if "$build_dir/ocellus" classify "$model" --json --image "$scratch/cut.ppm" "$scratch/good.png" --labels "a blue heart,a red heart" \
    >"$scratch/answer.json" 2>"$scratch/errors"; then echo "a picture that is cut off was accepted"; exit 1; fi
grep -q '"error"' "$scratch/answer.json" && grep -q '"label":"a blue heart"' "$scratch/answer.json"
code 1 "cut.ppm: " "$build_dir/ocellus" embed "$model" --image "$scratch/cut.ppm" "$blue" -o "$scratch/two.npy"
[ ! -e "$scratch/two.npy" ] || { echo "embeddings were written without a picture"; exit 1; }
code 1 "cut.ppm: " "$build_dir/ocellus" embed "$model" --keep-going --image "$scratch/cut.ppm" "$blue" -o "$scratch/two.npy"
cmp <(tail -c 256 "$scratch/two.npy") <(tail -c 256 "$scratch/blue.npy")
cmp <(tail -c 512 "$scratch/two.npy" | head -c 256) <(head -c 256 /dev/zero)
echo "one bad picture leaves the others, broken text is U+FFFD, links stay"
