# SPDX-License-Identifier: GPL-2.0-or-later
"""The active profile, whether the machine is as it says, and what the audit finds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.metrics.family import FamilySamples, family

RESULTS = ("passed", "failed", "missing", "note")
"""Results of a line of verify."""

TUNED = family("tuned_up", "Whether TuneD is running.")
PROFILE = family("profile_info", "An active profile; always 1.", "profile")
SWITCHED = family(
    "profile_switch_timestamp_seconds", "When TuneD last wrote down which profile is active."
)
PENDING = family(
    "originals_pending", "Original values that could not be restored yet, see tuned-virt status."
)

VERIFIED = family("verify_success", "Whether the last verification passed.")
DIFFERING = family("settings_differing", "Settings that differed from the profile.")
LINES = family("verify_lines", "Lines of the last verification, by result.", "result")

FINDINGS = family("audit_findings", "Findings of the last audit, by severity.", "severity")
SUPPRESSED = family("audit_suppressed_findings", "Findings that are accepted with a reason.")
NOT_CHECKED = family("audit_unchecked", "Checks that the last audit could not make.")

LIBVIRT = family("libvirt_up", "Whether libvirt answers.")
LIBVIRT_GUESTS = family("libvirt_guests", "Guests that run by libvirt's count.")


@dataclass(frozen=True)
class ProfileValues:
    """TuneD's profiles; `switched` in seconds since the epoch, None where none is written down."""

    running: bool
    profiles: tuple[str, ...]
    switched: float | None
    pending: int | None


def of_profile(values: ProfileValues) -> Iterator[FamilySamples]:
    """The families of the active profile."""
    yield TUNED.of(values.running)
    yield PROFILE.info((name,) for name in dict.fromkeys(values.profiles))
    yield SWITCHED.of(values.switched)
    yield PENDING.of(values.pending)


def of_verify(
    verified: bool, results: Sequence[str], differing: Sequence[str]
) -> Iterator[FamilySamples]:
    """The families of a verification: the result of each line, names of what differs."""
    yield VERIFIED.of(verified)
    yield DIFFERING.of(len(differing))
    yield LINES.by({(one,): results.count(one) for one in RESULTS})


def of_audit(
    counts: Mapping[str, int], suppressed: int, not_checked: int
) -> Iterator[FamilySamples]:
    """The families of an audit; `counts`: findings by severity that are not suppressed."""
    yield FINDINGS.by({(severity,): count for severity, count in counts.items()})
    yield SUPPRESSED.of(suppressed)
    yield NOT_CHECKED.of(not_checked)


def of_libvirt(guests: int | None) -> Iterator[FamilySamples]:
    """The families of libvirt; None where it does not answer."""
    yield LIBVIRT.of(guests is not None)
    yield LIBVIRT_GUESTS.of(guests)
