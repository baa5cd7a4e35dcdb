#!/usr/bin/env bash
# Install the Debian packages listed in FILE (one a line, # comments) that are missing. Needs root only when some are.
set -euo pipefail
list=$1
missing=()
while read -r package _; do
    [[ -z $package || $package == \#* ]] && continue
    dpkg-query --show --showformat='${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done < "$list"
if ((${#missing[@]} == 0)); then
    exit 0
fi
echo "==> Debian packages: ${missing[*]}"
if ((EUID != 0)); then
    echo "These packages are missing and need root to install. Run: sudo apt-get install ${missing[*]}" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null
