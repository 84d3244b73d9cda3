# SPDX-License-Identifier: GPL-2.0-or-later
# bash completion of tuned-virt, by argcomplete (python3-argcomplete); nothing without it
eval "$(register-python-argcomplete tuned-virt 2>/dev/null ||
    register-python-argcomplete3 tuned-virt 2>/dev/null)"
