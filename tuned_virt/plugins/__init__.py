# SPDX-License-Identifier: GPL-2.0-or-later
"""What each TuneD plugin tunes: one folder or module a plugin, named as the plugin."""
