# SPDX-License-Identifier: GPL-2.0-or-later
"""The program numad, as libvirt asks it (`numad -w`): where a guest should start."""
