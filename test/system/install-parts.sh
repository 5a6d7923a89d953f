#!/usr/bin/env bash
# Installs, from Debian packages, the real parts that the system tests use. Safe to repeat.
set -euo pipefail
packages=(postgresql mosquitto mosquitto-clients chromium fonts-noto-core espeak-ng socat curl openssl python3-cryptography sqlite3 e2fsprogs)
missing=()
for package in "${packages[@]}"; do
  dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
done
if [ "${#missing[@]}" -eq 0 ]; then echo "all parts are installed"; exit 0; fi
sudo=()
[ "$(id -u)" -eq 0 ] || sudo=(sudo)
export DEBIAN_FRONTEND=noninteractive
"${sudo[@]}" apt-get update -q
"${sudo[@]}" apt-get install -y -q --no-install-recommends "${missing[@]}"
