# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt: running guests followed, and guests tuned, without ever waiting for libvirt.

This package alone imports libvirt, which hosts may lack. `follower.Hypervisor` follows guests
read-only; `worker` holds the one connection that tunes them. The libvirt hook imports
`placement_tag` at each migration, so the package itself imports nothing.
"""
