# SPDX-License-Identifier: GPL-2.0-or-later
"""The guide's rules: what of a host and its guests breaks or costs, and the command that mends it.

One module per topic; a rule is a function with its metadata beside it (`rule.guest_rule`,
`rule.host_rule`). All is pure: `scene` has what is audited, `check` asks every rule.
"""
