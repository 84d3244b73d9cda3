# SPDX-License-Identifier: GPL-2.0-or-later
"""TuneD as a service of a real systemd, with our drop-in."""

from __future__ import annotations

from tests.sandbox import SystemdSandbox, wait_for


def test_a_restart_writes_nothing(tuned_service: SystemdSandbox) -> None:
    t = tuned_service
    before = t.snapshot()
    t.switch("virtual-host-plus")
    with t.log_of() as lines:
        t.restart()
    assert [line for line in lines if "ksm: kept for the tuned.service" in line]
    assert not [line for line in lines if "ksm: run" in line]
    wait_for("verified", t.verify)
    t.off()
    assert t.snapshot() == before


def test_a_stop_puts_everything_back(tuned_service: SystemdSandbox) -> None:
    t = tuned_service
    before = t.snapshot()
    t.switch("virtual-host-plus")
    t.terminate()
    assert t.snapshot() == before


def test_a_kill9_puts_everything_back(tuned_service: SystemdSandbox) -> None:
    t = tuned_service
    before = t.snapshot()
    t.switch("virtual-host-plus")
    t.kill9()
    assert t.snapshot() == before
    assert not (t.root / "run/tuned-virt/baseline.json").exists()
    t.start()
    wait_for("verified", t.verify)
    t.terminate()
    assert t.snapshot() == before


def test_what_another_profile_leaves_after_a_restart_is_put_back(
    tuned_service: SystemdSandbox,
) -> None:
    t = tuned_service
    before = t.snapshot()
    t.switch("virtual-host-plus")
    t.write("/etc/tuned/active_profile", "virtual-guest\n")
    t.restart()
    assert t.active() == "virtual-guest"
    wait_for("ksm put back", lambda: t.read("/sys/kernel/mm/ksm/run") == "0")
    t.off()
    assert t.snapshot() == before


def test_the_verify_unit_sees_all_that_it_may_not_change(tuned_service: SystemdSandbox) -> None:
    t = tuned_service
    t.switch("virtual-host-plus")
    wait_for("verified", t.verify)
    t.run(["systemctl", "start", "tuned-virt-verify"])
    t.run(["sh", "-c", "echo 77 >/proc/sys/vm/swappiness"])
    done = t.run(["systemctl", "start", "tuned-virt-verify"], check=False)
    failed = t.run(["systemctl", "is-failed", "tuned-virt-verify"], check=False)
    assert (done.returncode, failed.stdout.strip()) == (1, "failed")
    t.off()


TEXTFILES = "/var/lib/prometheus/node-exporter"


def test_the_metrics_unit_reads_all_and_writes_one_file(tuned_service: SystemdSandbox) -> None:
    t = tuned_service
    t.switch("virtual-host-plus")
    wait_for("verified", t.verify)
    t.run(["rm", "-rf", TEXTFILES])
    done = t.run(["systemctl", "start", "tuned-virt-metrics"], check=False)
    assert done.returncode == 1, "there is no folder"
    log = t.run(["journalctl", "-b", "-u", "tuned-virt-metrics", "--output=cat"]).stdout
    assert "--textfile: the folder of" in log
    t.run(["mkdir", "-p", TEXTFILES])
    t.run(["chown", "nobody", TEXTFILES])
    t.run(["systemctl", "start", "tuned-virt-metrics"])
    file = f"{TEXTFILES}/tuned-virt.prom"
    lines = t.read(file).splitlines()
    assert 'tuned_virt_profile_info{profile="virtual-host-plus"} 1.0' in lines
    assert {"tuned_virt_tuned_up 1.0", "tuned_virt_verify_success 1.0"} <= {*lines}
    errors = [line for line in lines if line.startswith("tuned_virt_collector_errors")]
    assert len(errors) == 7
    hidden = 'tuned_virt_collector_errors{collector="guests"} 1.0'  # in a PID namespace of its own
    assert [line for line in errors if not line.endswith(" 0.0")] == [hidden]
    assert t.run(["stat", "-c", "%a", file]).stdout == "644\n"
    assert t.run(["ls", "-A", TEXTFILES]).stdout == "tuned-virt.prom\n"
    t.off()
