#!/usr/bin/env bash
# Make (or bring up to date) the virtual environment: make-venv.sh PYTHON FOLDER.
set -euo pipefail
python=$1
folder=$2
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "Python 3.11 or newer is needed; $python is $("$python" --version). Say which with: make PYTHON=python3.12 VERB" >&2
    exit 1
}
[[ -x $folder/bin/python ]] || "$python" -m venv "$folder"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.txt
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
