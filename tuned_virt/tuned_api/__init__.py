# SPDX-License-Identifier: GPL-2.0-or-later
"""TuneD's API generations, its storage and its races: the only package that knows TuneD's insides.

Plugins are written once, against the interface of TuneD 2.25 and later, and run on 2.20 and later:

- `planned_plugin.PlannedPlugin` for what is planned as a whole (KSM): it takes a `Tuner` and holds
  no policy.
- `guest_plugin.GuestPlugin` for what is done to running guests, which are its devices.

All keep every exception in: TuneD answers one from a plugin by leaving the rest of the profile
unset, or by hanging. Generations differ as upstream's git history of tuned/plugins/base.py shows.
`import_hook` is imported whenever the interpreter starts, so this package imports nothing.
"""
