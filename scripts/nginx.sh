#!/usr/bin/env bash
# Print the path of an nginx for the tests behind a proxy, installing Debian's if there is none.
set -euo pipefail

find_nginx() {
  local candidate
  for candidate in "${DMPO_NGINX:-}" nginx /usr/sbin/nginx /opt/homebrew/bin/nginx /usr/local/sbin/nginx; do
    if [ -n "$candidate" ] && command -v "$candidate"; then return; fi
  done
  return 1
}

find_nginx && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "Installing Debian's nginx for the tests behind a proxy ..." >&2
  # RUNLEVEL=1: the package starts no server of its own.
  { apt-get update -qq && RUNLEVEL=1 apt-get install -y -qq --no-install-recommends nginx-light; } >&2 || true
  find_nginx && exit 0
fi
echo "No nginx to test the studio behind. Install one (apt install nginx-light, brew install nginx), or name it:" \
  "DMPO_NGINX=/path/to/nginx" >&2
exit 1
