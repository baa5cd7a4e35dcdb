#!/usr/bin/env bash
# Make the build context of the controllers' image: controllers-context.sh PYTHON_VERSION FOLDER [PYTHON].
# FOLDER/site gets the pinned dependencies as wheels for that Python (3.13, say) on this machine's architecture, their
# hashes checked, and the package; FOLDER/Containerfile the recipe. Then: buildah build (or docker build) FOLDER
set -euo pipefail
version=$1
folder=$2
python=${3:-python3}
root=$(cd "$(dirname "$0")/.." && pwd)
machine=$(uname -m)
mkdir -p "$folder"
# --platform is matched literally: name every form under which these packages publish wheels.
"$python" -m pip install --quiet --disable-pip-version-check --no-compile --no-deps --require-hashes \
    --only-binary=:all: --implementation cp --python-version "$version" \
    --platform "manylinux_2_28_$machine" --platform "manylinux_2_17_$machine" --platform "manylinux2014_$machine" \
    --requirement "$root/tandem/controllers/requirements.txt" --target "$folder/site"
# What a controller imports; the drill's own code stays out, but for how it reads objects.
parts=(__init__.py _checklist _recovery checklist.py controllers drill/__init__.py drill/api.py drill/apps.py
    drill/observe.py findings.py labels.py rebalance recovery.py runtime survey.py survivability.py)
mkdir -p "$folder/site/tandem"
(cd "$root/tandem" && find "${parts[@]}" -name '*.py' -print0 | tar --null --files-from=- --create) |
    tar --extract --directory "$folder/site/tandem"
# The image runs as a user of its own, who must be able to read it whatever umask this ran under.
chmod -R a+rX "$folder/site"
cp "$root/tandem/controllers/Containerfile" "$folder/Containerfile"
