#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Put the guest's profile into a disk image that is there already: virt-customize.sh DISK.qcow2
set -eu
virt-customize --add "$1" \
    --install tuned-virt-plus-guest \
    --mkdir /usr/lib/tuned-virt \
    --write /usr/lib/tuned-virt/virtual-guest-plus-variables.conf:swappiness=20 \
    --run-command "tuned-virt check-settings /usr/lib/tuned-virt/virtual-guest-plus-variables.conf" \
    --run-command "tuned-virt enable virtual-guest-plus" \
    --selinux-relabel
