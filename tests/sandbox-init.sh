#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# First process of a sandbox: a copy-on-write view of this machine's root with one TuneD version in
# it, its own /run, network and processes. Everything is gone when it ends.
# usage: sandbox-init.sh plain|systemd CHECKOUT BASE LAYER…
#        CHECKOUT is seen inside where it is, read-only; BASE is an empty folder; later layers on top
set -eu
init=$1 checkout=$2 base=$3
shift 3
mount -t tmpfs -o mode=755 sandbox "$base"
mkdir "$base/upper" "$base/work" "$base/root"
for layer; do
    cp -a "$layer/." "$base/upper/"
done
mount -t overlay -o "lowerdir=/,upperdir=$base/upper,workdir=$base/work" overlay "$base/root"
root=$base/root
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=755 run "$root/run"
mount -t tmpfs tmp "$root/tmp"
mkdir -p "$root$checkout"
mount --bind "$checkout" "$root$checkout"
mount -o remount,bind,ro "$root$checkout"
mkdir -p "$root/run/dbus" "$root/run/tuned"
rm -rf "$root/var/lib/tuned-virt" "$root/var/log/tuned"
mkdir -p "$root/var/log/tuned"
: >"$root/etc/tuned/active_profile"
echo manual >"$root/etc/tuned/profile_mode"
ip link set lo up 2>/dev/null || :

if [ "$init" = systemd ]; then
    cgroup=$root/sys/fs/cgroup
    if [ "$(stat -f -c %T /sys/fs/cgroup)" = cgroup2fs ]; then
        mount -t cgroup2 cgroup2 "$cgroup"
    else
        mount -t tmpfs cgroup "$cgroup"
        mkdir "$cgroup/systemd" "$cgroup/unified"
        mount -t cgroup -o none,name=systemd cgroup "$cgroup/systemd"
        mount -t cgroup2 cgroup2 "$cgroup/unified"
    fi
    printf '[Unit]\nRequires=tuned.service\nAfter=tuned.service\n' \
        >"$root/etc/systemd/system/sandbox.target"
    export container=sandbox
    exec chroot "$root" /lib/systemd/systemd --system --unit=sandbox.target
fi
mount --rbind /sys/fs/cgroup "$root/sys/fs/cgroup"
# bash as the first process reaps the orphans, as an init must
exec chroot "$root" bash -c 'echo ready; sleep infinity & wait'
