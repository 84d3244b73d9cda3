# SPDX-License-Identifier: GPL-2.0-or-later
"""Settings that serve a host, each with what was seen and why: `tuned-virt recommend`.

Pure; one module per topic, each with a function `recommend(Situation) → Iterator[Advice]`;
`decide` asks them all. It has nothing to do with TuneD's own recommend.d, which chooses a profile.
"""
