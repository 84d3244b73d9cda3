# SPDX-License-Identifier: GPL-2.0-or-later
"""What a switch of TuneD's profile would change, by TuneD's own code over a shadow of the kernel.

- `guard`       nothing that is started while a preview runs can write, execute or send anything
- `shadow`      stands in for the files that TuneD's plugins read and write
- `profile`     profiles loaded and merged by the installed TuneD's own loader
- `instances`   their sections as TuneD's plugins, which act on the shadow
- `modifiers`   > and < where only TuneD's memory has the original
- `special`     plugins that do more than write kernel files
- `origin`      the line of a profile that a write comes from
- `ours`        this project's own plugins, by their plans
- `last_switch` what the active profile set where its files were edited since
- `switch`      the active profile undone, the new one applied, and what differs then
"""
