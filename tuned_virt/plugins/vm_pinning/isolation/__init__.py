# SPDX-License-Identifier: GPL-2.0-or-later
"""CPUs of dedicated guests kept free of the host's own tasks and interrupts, as isolation= asks."""
