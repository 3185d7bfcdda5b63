#!/bin/sh
# Called by verify.sh inside new namespaces: runs a command in ROOT, an image's, as `docker run` would with --network
# none --read-only --tmpfs /tmp --user USER --cap-drop ALL --security-opt no-new-privileges.
#   in_chroot.sh ROOT USER INPUT OUTPUT WORD...                 NETWORK=host: with the machine's network, for a service
#                                                               MODEL=FOLDER: mounted at /opt/ml/model
set -eu
root=$1 user=$2 input=$3 output=$4
shift 4
mount --make-rprivate /
mount --bind "$root" "$root"
mount --bind -o ro "$input" "$root/input"
mount -o remount,bind,ro "$root/input"
mount --bind "$output" "$root/output"
if [ -n "${MODEL:-}" ]; then
  mount --bind -o ro "$MODEL" "$root/opt/ml/model"
  mount -o remount,bind,ro "$root/opt/ml/model"
fi
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o size=64m,mode=1777 shm "$root/dev/shm"
mount -o remount,bind,ro "$root"

# The proofs: no interface but loopback, and nothing can be written but /output and /tmp.
[ "${NETWORK:-none}" = host ] || [ -z "$(tail -n +3 /proc/net/dev | grep -v ' lo:')" ] || { echo "there is a network" >&2; exit 1; }
for place in / /input /opt; do
  if touch "$root$place/probe" 2>/dev/null; then echo "$place can be written" >&2; exit 1; fi
done
exec chroot "$root" /usr/bin/setpriv --reuid "${user%:*}" --regid "${user#*:}" --clear-groups --no-new-privs \
  --inh-caps=-all --bounding-set=-all "$@"
