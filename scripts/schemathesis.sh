#!/usr/bin/env bash
# Schemathesis against a studio of its own, all checks: without a token, as an annotator, as an administrator.
#
#   scripts/schemathesis.sh [EXAMPLES]    examples an operation, 10 unless given; ends with 1 when anything is found
#
# Schemathesis is installed into build/schemathesis, apart from the project's own packages.
set -euo pipefail
cd "$(dirname "$0")/.."
examples=${1:-10}
tools=$PWD/build/schemathesis
config=$PWD/scripts/schemathesis.toml
python=.venv/bin/python
[[ -x $tools/bin/schemathesis ]] || { "$python" -m venv "$tools" && "$tools/bin/pip" install -q 'schemathesis>=4.10'; }

home=$(mktemp -d)
port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
url=http://127.0.0.1:$port
token=schemathesis-administrators-token
# Wrong administrators' tokens are what it tries: limited, they would be answered 429.
DMPO_ADMIN_TOKEN=$token DMPO_PUBLIC=false DMPO_LIMITS__ADMIN_TRIES_PER_MINUTE=100000 "$python" -m dmpo_app.cli serve --home "$home" --port "$port" --no-train \
  >"$home.log" 2>&1 &
server=$!
trap 'kill $server; wait $server 2>/dev/null || true; rm -rf "$home"' EXIT
for _ in $(seq 120); do
  curl -fsS "$url/readyz" 2>/dev/null | grep -q '"renderer":"ready"' && break
  sleep 1
done
annotator=$(curl -fsS "$url/api/v1/session" -H 'Content-Type: application/json' -d '{"handle":"schemathesis"}' |
  "$python" -c 'import json, sys; print(json.load(sys.stdin)["token"])')

failed=0
for identity in none annotator administrator; do
  echo "== $identity"
  case $identity in
    none) header=() ;;
    annotator) header=(-H "Authorization: Bearer $annotator") ;;
    administrator) header=(-H "Authorization: Bearer $token") ;;
  esac
  # All checks are on by default; named on the command line they would override the file. Its records go into build/.
  (cd "$tools" && bin/schemathesis --config-file "$config" run "$url/api/v1/openapi.json" --url "$url" \
    --max-examples "$examples" --workers 1 --request-timeout 200 "${header[@]}") || failed=1
done
echo "The server's log is $home.log"
exit $failed
