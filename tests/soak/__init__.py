# SPDX-License-Identifier: GPL-2.0-or-later
"""Hours of what administrators, guests and the machine do to a host, in a random order."""
