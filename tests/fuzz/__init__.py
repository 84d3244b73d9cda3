# SPDX-License-Identifier: GPL-2.0-or-later
"""Every reader of what others write is given what nobody would write: see `__main__`."""
