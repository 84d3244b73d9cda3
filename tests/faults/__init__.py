# SPDX-License-Identifier: GPL-2.0-or-later
"""Each call that an apply and an off make fails once, and many switches under one daemon."""
