# SPDX-License-Identifier: GPL-2.0-or-later
"""What others publish with their tests, captured machines and guests' XML, for ours.

It is theirs and stays out of the repository: `python -m tests.published` gets it from Debian's
source packages, once, into build/published. Tests never fetch: where it is not there, those that
need it are skipped, and tests/conftest.py says at the end how many, and why.
"""
