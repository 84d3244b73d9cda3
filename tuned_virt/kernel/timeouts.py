# SPDX-License-Identifier: GPL-2.0-or-later
"""How long anything waits for what, in seconds: the one place that says so, and why that long.

TuneD's threads wait for our work inside D-Bus calls, which give up after 25 s, and after 40 s for
the whole of a profile's restore: what they wait for is kept far below.
"""

from __future__ import annotations

APPLY = 2.0
"""TuneD's thread, for an apply or a restore to be carried out, before it leaves it to go on by
itself: most take milliseconds, and a profile has ten plugins that may each wait."""

LATER = 0.1
"""What goes on after an apply, for TuneD to apply the rest of the profile and to say so."""

GUESTS_RESTORED = 10.0
"""TuneD's thread, for guests to be restored: who says off expects everything as it was. Not waited
for a libvirt that hangs or is gone."""

FIRST_LISTING = 0.5
"""A starting plugin, for the first list of guests, so that TuneD assigns them at once."""

NEXT_APPLY = 10.0
"""A deferred restore, for the apply that is expected next: TuneD says when it has come, so this is
for a TuneD that never says."""

LOCK = 2.0
"""Anybody who reads or keeps originals, for another process's lock on them: it is held for one
small write. A process that was waited for in vain is not waited for again."""

RELEASED = 30.0
"""`tuned-virt disable`, for TuneD to apply the profile before ours and to restore what that does
not set: a package is removed right after it."""

RETRY_RESTORE = 30.0
"""Between attempts to restore what could not be restored: pages in use, a service that hangs."""

RETRY_REFUSED = 30.0
"""Between attempts to set what libvirt has refused."""

ONE_SHOT = 5.0
"""A command, for libvirt: a socket-activated daemon takes a second or two to start."""

VERIFY_GUESTS = 0.4
"""Verify, for libvirt: TuneD's thread waits, and two plugins ask."""

QUEUE_DRAINS = 5.0
"""An apply, for changes of which none is completed: a disk's queue may never drain."""

DISKS_READ = 1.0
"""An apply, for reads of sysfs and of disks' paths of which none is answered: a hung controller or
NFS server keeps its reader for ever."""

ZPOOL = 2.0
"""An apply, for `zpool list`: on a pool whose disks are gone it waits for ever."""

GUEST_WEIGHTS = 3.0
"""An apply, for the weights of all guests: up to some milliseconds each."""

SYSTEMD_ANSWERS = 5.0
"""A question to systemd, or a property set: TuneD's D-Bus may be waiting for it."""

PROGRAM = 30.0
"""mount, umount, modprobe and rmmod."""

SERVICE_RESTART = 60.0
"""systemctl try-restart, for a service that stops and starts."""
