# SPDX-License-Identifier: GPL-2.0-or-later
"""This checkout on a minimal Debian that nobody has prepared."""
