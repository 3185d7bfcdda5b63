#!/bin/sh
# Builds the inference image with whichever container engine works here and proves that it does what docker/README.md
# says: same labels as `segpipe predict`, non-root, read-only input and root, no network. Exits non-zero otherwise.
#
#   docker/verify.sh [--base cpu|cuda|slim] [--engine docker|podman|buildah] [PACKAGE] [SCANS]
#
# Without arguments it makes its own base image (Debian with debootstrap), a small model, and takes a real scan from
# $SEGPIPE_DATA where that is set, else a phantom. With buildah it needs root; wheels are downloaded by this machine's pip,
# with its own configuration, and reach the build as a mount.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
export PYTHONPATH="$PWD"
base=cpu engine="" package="" scans=""
while [ $# -gt 0 ]; do
  case $1 in
    --base) base=$2; shift ;;
    --engine) engine=$2; shift ;;
    -*) echo "verify.sh: unknown option $1" >&2; exit 2 ;;
    *) if [ -z "$package" ]; then package=$1; else scans=$1; fi ;;
  esac
  shift
done
case $base in cpu | cuda | slim) ;; *) echo "verify.sh: --base is cpu, cuda or slim, not $base" >&2; exit 2 ;; esac
tag=localhost/segpipe-verify:$base
debian=localhost/segpipe-verify-base:bookworm
work=$(mktemp -d)
container="" service=""
finish() {
  stop_service
  [ -z "$container" ] || { buildah umount "$container"; buildah rm "$container"; } >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
# unshare itself does not heed signals; its child is the first process of the namespace, and takes the others along.
stop_service() {
  [ -n "$service" ] || return 0
  case $engine in
    buildah)
      child=$(($(cat "/proc/$service/task/$service/children" 2>/dev/null || echo 0)))
      if [ "$child" != 0 ]; then kill -CONT "$child"; kill -TERM "$child"; fi
      wait "$service" || true ;;
    *) $engine stop "$service" >/dev/null 2>&1 || true; $engine rm "$service" >/dev/null 2>&1 || true ;;
  esac
  service=""
}
say() { printf '\n== %s\n' "$*"; }
fail() { echo "verify.sh: $*" >&2; exit 1; }

# --- which engine -------------------------------------------------------------------------------------------------
if [ -z "$engine" ]; then
  for candidate in docker podman buildah; do
    if command -v $candidate >/dev/null && $candidate info >/dev/null 2>&1; then engine=$candidate; break; fi
  done
fi
[ -n "$engine" ] || fail "no container engine works here: install docker, podman or buildah (apt-get install buildah)"
say "engine: $engine, base: $base"

# --- a base of our own --------------------------------------------------------------------------------------------
has_image() {
  case $engine in buildah) buildah inspect --type image "$1" ;; *) $engine image inspect "$1" ;; esac >/dev/null 2>&1
}
make_base() {
  command -v debootstrap >/dev/null || fail "debootstrap is needed to make a base (apt-get install debootstrap)"
  debootstrap --variant=minbase --include=python3,python3-venv bookworm "$work/debian" >"$work/debootstrap.log" 2>&1 ||
    { tail -n 5 "$work/debootstrap.log"; fail "debootstrap could not make a base"; }
  rm -rf "$work"/debian/var/cache/apt/* "$work"/debian/var/lib/apt/lists/* "$work"/debian/usr/share/doc/*
  tar -C "$work/debian" -cf "$work/debian.tar" .
  case $engine in
    buildah)
      new=$(buildah from scratch)
      buildah add --quiet "$new" "$work/debian.tar" / >/dev/null
      buildah commit --quiet --rm "$new" "$debian" >/dev/null ;;
    *) $engine import "$work/debian.tar" "$debian" >/dev/null ;;
  esac
  rm -rf "$work/debian" "$work/debian.tar"
}
if [ -z "${SEGPIPE_PYTHON_IMAGE:-}" ]; then
  has_image "$debian" || { say "making the base image with debootstrap"; make_base; }
  export SEGPIPE_PYTHON_IMAGE=$debian
fi

# --- model, scan, wheels ------------------------------------------------------------------------------------------
mkdir -p "$work/in" "$work/kinds" "$work/gc/images/scan"
if [ -n "$scans" ]; then
  cp -r "$scans/." "$work/in/"
elif [ -n "${SEGPIPE_DATA:-}" ] && [ -d "$SEGPIPE_DATA/hippocampus/images" ]; then
  cp "$(find "$SEGPIPE_DATA/hippocampus/images" -name '*.nii.gz' | sort | head -n 1)" "$work/in/"
else
  "$python" -c "from pathlib import Path; from pipeline.dataset.phantoms import make_phantoms; make_phantoms(Path('$work/phantoms'))"
  cp "$(find "$work/phantoms" -path '*images*' -name '*.nii.gz' | sort | head -n 1)" "$work/in/"
fi
if [ -z "$package" ]; then
  package=$work/package
  scan=$(find "$work/in" -name '*.nii.gz' | sort | head -n 1)
  if [ "$base" = slim ]; then set -- "$package" "$scan"; else set -- "$package"; fi
  "$python" -m tests.packaging.small_package "$@" 2>/dev/null
fi
"$python" docker/as_kind.py "$work/in" "$work/gc/images/scan" .mha
cp "$work"/gc/images/scan/*.mha "$work/kinds/"
mkdir "$work/kinds/as_nrrd"
"$python" docker/as_kind.py "$work/in" "$work/kinds/as_nrrd" .nrrd
if [ -d "${SEGPIPE_DATA:-/none}/hippocampus_dicom/11" ]; then cp -r "$SEGPIPE_DATA/hippocampus_dicom/11" "$work/kinds/dicom"; fi
if [ -z "${SEGPIPE_WHEELS:-}" ]; then
  say "downloading wheels with this machine's pip"
  export SEGPIPE_WHEELS="$work/wheels"
  for lock in build "$base"; do
    set -- --quiet --no-deps --require-hashes --only-binary :all: --python-version 3.11 --dest "$SEGPIPE_WHEELS" \
      --requirement "docker/requirements/$lock.lock"
    for glibc in $(seq 5 28); do set -- "$@" --platform "manylinux_2_${glibc}_x86_64"; done  # pip takes each to the letter
    set -- "$@" --platform manylinux2014_x86_64 --platform manylinux2010_x86_64 --platform manylinux1_x86_64
    "$python" -m pip download "$@" 2>"$work/pip.log" ||
      { [ "$lock" = cpu ] && "$python" -m pip download --extra-index-url https://download.pytorch.org/whl/cpu "$@"; } ||
      { cat "$work/pip.log"; fail "the wheels of $lock.lock could not be downloaded"; }
  done
fi

# A certificate authority of this machine alone, as behind a hospital's proxy: it must leave no trace in the image.
if [ -z "${SEGPIPE_CA_CERTIFICATES:-}" ] && command -v openssl >/dev/null; then
  openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj "/CN=verify.sh" -keyout "$work/ca.key" -out "$work/ca.pem" 2>/dev/null
  export SEGPIPE_CA_CERTIFICATES="$work/ca.pem"
fi

# --- build --------------------------------------------------------------------------------------------------------
say "building $tag"
"$python" -m pipeline image "$package" -t "$tag" --base "$base" --engine "$engine" >"$work/build.log" 2>&1 ||
  { tail -n 30 "$work/build.log"; fail "the image could not be built"; }

# --- run: always as a user that the image does not know, with a read-only root and input, and without a network ----
chmod 755 "$work"
user=4321:4321
run() {
  input=$1 output=$2
  shift 2
  mkdir -p "$output"
  chown "$user" "$output" 2>/dev/null || user=$(id -u):$(id -g)
  case $engine in
    buildah) run_in_chroot "$input" "$output" "$@" ;;
    *)
      $engine run --rm --network none --read-only --tmpfs /tmp --user "$user" --cap-drop ALL \
        --security-opt no-new-privileges --shm-size 64m -v "$input:/input:ro" -v "$output:/output" \
        ${MODEL:+-v "$MODEL:/opt/ml/model:ro"} "$tag" "$@" ;;
  esac
}
# What the flags above do, with what the kernel offers: own network and mount namespaces, read-only bind mounts, no
# capabilities, no new privileges. What runs is the image's own ENTRYPOINT, in its ENV, with its CMD where nothing else
# is asked for.
run_in_chroot() {
  input=$1 output=$2
  shift 2
  # shellcheck disable=SC2086  # as many words as the image has
  if [ $# -eq 0 ]; then set -- $cmd; fi
  while IFS= read -r word; do set -- "$word" "$@"; done <"$work/entrypoint"
  unshare --net --mount --ipc --pid --fork docker/in_chroot.sh "$root" "$user" "$input" "$output" "$@"
}
as_built() { buildah inspect --type image "$tag" | "$python" docker/as_built.py "$1"; }
if [ "$engine" = buildah ]; then
  container=$(buildah from --pull-never "$tag")
  root=$(buildah mount "$container")
  [ "$(buildah inspect --format '{{.OCIv1.Config.User}}' "$container")" = 10001:10001 ] || fail "the image runs as root"
  as_built entrypoint >"$work/words"
  tac "$work/words" >"$work/entrypoint"  # from the last word on, since each is put before those that are there
  as_built healthcheck >"$work/healthcheck"
  cmd=$(as_built cmd)
  for trace in pip.conf build-ca.pem wheels; do
    [ ! -e "$root/etc/$trace" ] && [ ! -e "$root/$trace" ] || fail "the build machine's $trace is in the image"
  done
  [ -z "$(find "$root" -xdev -name '*.whl' -path '*segpipe*')" ] || fail "a wheel is in the image"
  [ -z "$(find "$root/root/.cache" "$root/tmp" "$root/var/tmp" -type f 2>/dev/null)" ] || fail "a cache is in the image"
  if [ -s "$work/ca.pem" ]; then
    ! grep -rqF "$(sed -n 3p "$work/ca.pem")" "$root/etc" "$root/opt" || fail "the build machine's certificate is in it"
  fi
  [ -z "$(find "$root/usr/bin" "$root/opt" \( -name gcc -o -name cc -o -name 'c++' -o -name nvcc -o -name ptxas \))" ] ||
    fail "a compiler is in it"
  if [ "$base" = cuda ]; then
    for asked in NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility; do
      grep -qx "$asked" "$work/words" || fail "the image lacks $asked: NVIDIA's runtime would give it no GPU"
    done
  fi
fi

if [ "$engine" != buildah ]; then
  [ "$($engine image inspect --format '{{.Config.User}}' "$tag")" = 10001:10001 ] || fail "the image runs as root"
fi

say "versions"
run "$work/in" "$work/out-version" --version >"$work/version.txt"
head -n 5 "$work/version.txt"
grep -q '^segpipe' "$work/version.txt" && grep -qi 'numpy' "$work/version.txt" || fail "--version lists no packages"
grep -qx "base: $base" "$work/version.txt" || fail "--version names another variant"

say "plain folders: /input to /output"
before=$(date +%s%N)
run "$work/in" "$work/out"
took_ms=$((($(date +%s%N) - before) / 1000000))
echo "from the container's start to its end, $(find "$work/in" -type f | wc -l) scan(s): $took_ms ms"
"$python" -m pipeline predict --model "$package" --input "$work/in" --output "$work/expected" --device cpu >/dev/null
share=$([ "$base" = slim ] && echo 0.999 || echo 1)
"$python" docker/same_labels.py "$work/expected" "$work/out" "$share"
[ -s "$work/out/cases.csv" ] && [ -s "$work/out/volumes.json" ] || fail "cases.csv or volumes.json is missing"

say "other kinds: .mha, .nrrd and, where there is one, a DICOM series"
run "$work/kinds" "$work/out-kinds"
"$python" -m pipeline predict --model "$package" --input "$work/kinds" --output "$work/expected-kinds" --device cpu >/dev/null
"$python" docker/same_labels.py "$work/expected-kinds" "$work/out-kinds" "$share"

say "grand-challenge: /input/images/SLUG to /output/images/SLUG"
run "$work/gc" "$work/out-gc"
slug=$("$python" -c "import json; print(json.load(open('$package/package.json'))['output_slug'])" 2>/dev/null || echo segmentation)
"$python" -m pipeline predict --model "$package" --input "$work/gc/images/scan" --output "$work/expected-gc" --device cpu >/dev/null
"$python" docker/same_labels.py "$work/expected-gc" "$work/out-gc/images/$slug" "$share"

say "another model mounted at /opt/ml/model: it is the one that counts, and none is named"
mkdir "$work/no-model"
MODEL=$work/no-model run "$work/in" "$work/out-none" >"$work/none.log" 2>&1 && code=0 || code=$?
[ "$code" = 3 ] && grep -q /opt/ml/model "$work/none.log" || { cat "$work/none.log"; fail "exit code $code without a model"; }
MODEL=$package run "$work/in" "$work/out-mounted"
"$python" docker/same_labels.py "$work/expected" "$work/out-mounted" "$share"

# Whether a GPU is used where there is one can only be seen where there is one; --device auto has been seen above.
if [ -z "$(find /dev -maxdepth 1 -name 'nvidia[0-9]*')" ]; then
  say "a GPU that is not there: refused with a sentence, exit code 2"
  run "$work/in" "$work/out-gpu" --device cuda >"$work/gpu.log" 2>&1 && code=0 || code=$?
  cat "$work/gpu.log"
  [ "$code" = 2 ] && grep -q "device: 'cuda'.*use device: auto or cpu" "$work/gpu.log" || fail "exit code $code without a GPU"
fi

say "a truncated scan among others: it is named, the others are done, exit code 4"
mkdir "$work/broken"
cp "$work"/in/* "$work/broken/"
head -c 3000 "$(find "$work/in" -name '*.nii.gz' | head -n 1)" >"$work/broken/cut_off.nii.gz"
run "$work/broken" "$work/out-broken" >"$work/broken.log" 2>&1 && code=0 || code=$?
[ "$code" = 4 ] || { cat "$work/broken.log"; fail "exit code $code instead of 4"; }
grep cut_off "$work/out-broken/cases.csv" || fail "cases.csv does not name the truncated scan"

say "as a service: a scan is posted; health, metrics, model and page answer"
port=${SEGPIPE_VERIFY_PORT:-$((18000 + $$ % 2000))}  # another each time, so that no earlier one answers
mkdir -p "$work/out-serve" "$work/served"
chown "$user" "$work/out-serve" 2>/dev/null || true
case $engine in
  buildah)
    set -- serve --host 127.0.0.1 --port "$port"
    while IFS= read -r word; do set -- "$word" "$@"; done <"$work/entrypoint"
    NETWORK=host unshare --mount --ipc --pid --fork \
      docker/in_chroot.sh "$root" "$user" "$work/in" "$work/out-serve" "$@" >"$work/serve.log" 2>&1 &
    service=$! ;;
  *)
    service=$($engine run --detach --read-only --tmpfs /tmp --user "$user" --cap-drop ALL \
      --security-opt no-new-privileges --publish "127.0.0.1:$port:$port" "$tag" serve --port "$port") ;;
esac
scan=$(find "$work/in" -name '*.nii.gz' | sort | head -n 1)
"$python" docker/ask_service.py "http://127.0.0.1:$port" "$scan" "$work/served/$(basename "$scan")" ||
  { [ "$engine" = buildah ] && cat "$work/serve.log" || $engine logs "$service" || true; fail "the service does not do what it should"; }
# The image's HEALTHCHECK, in the namespaces of the service as an engine runs it: well while it serves, and not when it
# is halted.
if [ "$engine" = buildah ]; then
  child=$(($(cat "/proc/$service/task/$service/children")))  # without the blank behind it
  check_health() {
    set --
    while IFS= read -r word; do set -- "$@" "$word"; done <"$work/healthcheck"
    nsenter --target "$child" --mount --ipc --pid chroot "$root" \
      /usr/bin/setpriv --reuid "${user%:*}" --regid "${user#*:}" --clear-groups --no-new-privs "$@"
  }
  check_health || fail "the health check fails beside a service that answers"
  kill -STOP "$child"
  ! check_health || fail "the health check finds a halted service well"
  kill -CONT "$child"
else
  $engine exec "$service" /opt/segpipe/bin/python -m pipeline.deploy.container_entrypoint health || fail "the health check fails"
fi
stop_service
mkdir "$work/expected-served"
cp "$work/expected/$(basename "$scan")" "$work/expected-served/"
"$python" docker/same_labels.py "$work/expected-served" "$work/served" "$share"

say "sizes"
"$python" docker/sizes.py "$engine" "$tag"
if [ "$engine" = buildah ]; then
  du -sm "$root"/opt/segpipe/lib/python3*/site-packages/* "$root/opt/ml/model" | sort -rn | head -n 12 | sed "s#$root##; s#\t# MiB #"
fi
say "verified: $tag gives the labels of segpipe predict, as $user, without network, root or a writable root"
