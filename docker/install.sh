#!/bin/sh
# Inside the build stage: makes /opt/segpipe, a virtual environment with exactly what the variant's lock file names.
# Only wheels whose hashes are listed are installed; segpipe itself is built here from the source.
set -eu
base=$1 torch_cpu_index=$2 revision=$3
locks=docker/requirements

if [ -n "$(ls -A /wheels 2>/dev/null)" ]; then
  from="--no-index --find-links /wheels"
elif [ "$base" = cpu ]; then
  from="--extra-index-url $torch_cpu_index"
else
  from=""
fi

if [ -s /etc/build-ca.pem ]; then export PIP_CERT=/etc/build-ca.pem; fi

python3 -m venv /opt/builder
python3 -m venv --without-pip /opt/segpipe
pip=/opt/builder/bin/pip
# shellcheck disable=SC2086  # $from is several words
$pip install --quiet --require-hashes --only-binary :all: $from -r "$locks/build.lock"
# shellcheck disable=SC2086
$pip --python /opt/segpipe/bin/python install --quiet --no-deps --require-hashes --only-binary :all: $from \
  -r "$locks/$base.lock"
$pip wheel --quiet --no-deps --no-build-isolation --no-index --wheel-dir /tmp/made ./source
$pip --python /opt/segpipe/bin/python install --quiet --no-deps --no-index /tmp/made/*.whl
# What only compiling against torch needs, and the packages' own tests (in scipy, numpy and nibabel 60 MB).
# Byte code stays: a root that cannot be written would have it made again at every start.
rm -rf /opt/segpipe/lib/python3*/site-packages/torch/include
find /opt/segpipe/lib/python3*/site-packages -type d \( -name tests -o -name test \) -prune -exec rm -rf {} +
/opt/segpipe/bin/python docker/build_info.py "$base" "$revision" > /opt/segpipe/BUILD.info
