#!/bin/bash
# Does what listens on this machine serve? Address, port, and a path to ask by HTTP (without one a connection is enough).
# Written by Tandem's role virtual_ip; keepalived runs it as nobody, and gives it the time that an answer may take.
set -u
exec 3<>"/dev/tcp/$1/$2" || exit 1
[[ -n ${3:-} ]] || exit 0
printf 'GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: tandem-virtual-ip\r\nConnection: close\r\n\r\n' "$3" "$1" >&3 || exit 1
read -r _ status _ <&3 || exit 1
[[ $status == 200 ]]
