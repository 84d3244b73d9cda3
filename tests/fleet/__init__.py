# SPDX-License-Identifier: GPL-2.0-or-later
"""The Ansible collection against hosts in namespaces, over real sshd, each with its own TuneD."""
