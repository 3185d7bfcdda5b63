#!/bin/sh
# Writes the hashed lock file of each image variant again, from its .in file and constraints.txt. Needs uv.
# triton, which torch names for CUDA, is left out: it compiles with the C compiler that no image has, and torch, where it
# finds triton, calls it for some products of matrices and fails. Without it torch takes its own kernels.
# torch's CPU builds: TORCH_FIND=URL-or-folder (default: PyTorch's own list of them).
set -eu
cd "$(dirname "$0")/requirements"
torch_find=${TORCH_FIND:-https://download.pytorch.org/whl/cpu/torch/}
for variant in build cpu cuda slim; do
  uv pip compile --quiet --generate-hashes --no-header --no-annotate \
    --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
    --constraint ../../constraints.txt --find-links "$torch_find" --no-emit-package triton \
    --output-file "$variant.lock" "$variant.in"
done
