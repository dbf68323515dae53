#!/usr/bin/env bash
# Builds the page and serves it to this machine's browsers at http://127.0.0.1:8000.
# Usage: examples/web/run.sh [PORT]      (packages: tools/install_deps.sh build test web)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
port=${1:-8000}
cmake --preset wasm
cmake --build --preset wasm -j"$(nproc)" --target site
echo "The page: http://127.0.0.1:$port/"
exec python3 -m http.server "$port" --bind 127.0.0.1 --directory build-wasm/web
