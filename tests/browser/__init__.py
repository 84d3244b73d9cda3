# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages in a real browser: Chromium without a screen, on the files that commands write."""
