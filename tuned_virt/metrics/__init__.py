# SPDX-License-Identifier: GPL-2.0-or-later
"""What `tuned-virt metrics` exports, as Prometheus names it: families, and samples of them.

Pure; one module per topic, each with its families and a function that makes samples of values.
`catalogue` has all families. A value that is None is not there, and gives no series.
"""
