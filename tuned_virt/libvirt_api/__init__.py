# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt: one connection a process, its guests, and calls that tune them; nobody waits for it.

This package alone imports libvirt, which hosts may lack; its own errors are in `errors`. `worker`
holds the connection, `follower` reads from its inventory for those who follow guests. The libvirt
hook imports `placement_tag` at each migration, so the package itself imports nothing.
"""
