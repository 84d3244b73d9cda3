# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt metrics: print metrics for Prometheus, write them for node_exporter, or serve them."""

from __future__ import annotations

import argparse
import contextlib
import sys

from tuned_virt.cli import metrics_listen, metrics_output
from tuned_virt.cli.common import FINE, TO_REPORT
from tuned_virt.cli.metrics_collect import MetricsCollection
from tuned_virt.kernel.files import KernelFS

SECONDS = 45.0
"""For a collection that nobody waits for; tuned-virt-metrics.service ends after a minute."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's options."""
    output = parser.add_mutually_exclusive_group()
    output.add_argument(
        "--textfile",
        metavar="FILE",
        help="replace FILE, in the folder of node_exporter's textfile collector, instead of"
        " printing; its name ends in .prom",
    )
    output.add_argument(
        "--listen",
        metavar="[ADDRESS:]PORT",
        help="answer GET /metrics on this port, of 127.0.0.1 where no address is given;"
        " [IPV6-ADDRESS]:PORT for IPv6",
    )


def run(options: argparse.Namespace) -> int:
    """Collect and print, write or serve; 1 where something could not be read. Raises CouldNot."""
    metrics_output.check()
    collection = MetricsCollection(KernelFS())
    if options.listen is not None:
        return _listen(metrics_listen.parse(options.listen), collection)
    if options.textfile is not None:
        metrics_output.check_file(options.textfile)
    samples, errors = collection.collect(SECONDS)
    content = metrics_output.text(samples)
    if options.textfile is None:
        sys.stdout.write(content.decode())
    else:
        metrics_output.write(options.textfile, content)
    return TO_REPORT if errors else FINE


def _listen(address: metrics_listen.ListenAddress, collection: MetricsCollection) -> int:
    """Until it is interrupted."""

    def collect(seconds: float) -> bytes:
        return metrics_output.text(collection.collect(seconds)[0])

    kind = metrics_output.content_type()
    with metrics_listen.MetricsServer(address, collect, kind) as server:
        print(f"http://{address}{metrics_listen.PATH}", file=sys.stderr, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
    return FINE
