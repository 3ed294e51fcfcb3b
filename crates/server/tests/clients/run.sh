#!/usr/bin/env bash
# Other people's clients, a browser and faults against the server: `run.sh path/to/brisk`.
# Installs what it needs (Debian's Chromium with its driver, Node, Python) and clients from their registries.
set -euo pipefail
brisk=$(realpath "$1")
cd "$(dirname "$0")"

need() { command -v "$1" >/dev/null || missing+=("$2"); }
missing=()
need chromium chromium
need chromedriver chromium-driver
need node nodejs
need npm npm
need curl curl
python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
if [ ${#missing[@]} -gt 0 ]; then
    apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi
work=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$work"' EXIT
npm ci --silent --no-audit --no-fund
python3 -m venv "$work/python"
"$work/python/bin/pip" install --quiet --disable-pip-version-check -r requirements.txt

echo "-- the page's modules have types"
npx tsc -p tsconfig.json >"$work/types" || true
# Vendored files are as their authors publish them; indented lines go on with a message.
if grep -v '^ ' "$work/types" | grep -v '/ui/vendor/'; then exit 1; fi

serve() {
    # Emptied here: the server before it left its address, and the next is not there at once.
    : >"$work/log"
    "$brisk" serve --listen 127.0.0.1:0 --requests-per-minute 100000 "$@" 2>>"$work/log" &
    server=$!
    until address=$(grep -om1 'http://[0-9.:]*' "$work/log"); do sleep 0.1; kill -0 "$server"; done
}
end() { kill "$server" && wait "$server" || true; }

echo "-- OpenAI's clients, and the examples of the documentation"
serve
"$work/python/bin/python" journey.py "$address" "$brisk"
BRISK_ADDRESS=$address node --test --test-reporter=spec journey.test.mjs
PATH="$work/python/bin:$PATH" python docs.py ../../../../docs/serve.md "$address"
end

echo "-- the description of the interface"
serve --max-pixels 16384 --max-steps 2 --max-results 2 --max-tokens 32
# Fields depend on the model, so what the description allows may still be refused; the coverage phase of this
# version fails in itself. How fast it makes its data is up to the machine.
(cd "$work" && python/bin/schemathesis run "$address/openapi.json" --phases fuzzing,stateful --max-examples 30 \
    --workers 2 --no-color --exclude-checks positive_data_acceptance --suppress-health-check too_slow --seed 1) >"$work/schemathesis" \
    || { cat "$work/schemathesis"; exit 1; }
tail -1 "$work/schemathesis"
end

echo "-- faults"
"$work/python/bin/python" faults.py "$brisk"

echo "-- the page"
BRISK=$brisk node --test --test-reporter=spec page.test.mjs
