# SPDX-License-Identifier: GPL-2.0-or-later
"""Options, plans, the engine that carries them out, originals on disk, the journal."""
