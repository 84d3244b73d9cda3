# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest plugin in the hands of TuneD's own classes, over a fake binding of libvirt's."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType, SimpleNamespace
from typing import Any

import pytest
from tuned.units.manager import Manager

from tests.unit.guests.recording import RecordingTuner, until
from tests.unit.libvirt_api.fake_binding import FakeDomain, FakeLibvirt, install
from tests.unit.tuned_api import made_up
from tuned_virt.core.options import OptionSpec
from tuned_virt.core.originals import OriginalsError
from tuned_virt.guests import manager
from tuned_virt.kernel import timeouts
from tuned_virt.kernel.files import KernelFileError
from tuned_virt.libvirt_api import binding, worker
from tuned_virt.libvirt_api.connection import Domain
from tuned_virt.tuned_api import guest_plugin
from tuned_virt.tuned_api.guest_plugin import GuestPlugin

Applied = tuple[Any, list[Any]]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeLibvirt]:
    monkeypatch.setattr(worker, "_workers", {})
    monkeypatch.setattr(manager, "_managers", {})
    monkeypatch.setattr(timeouts, "FIRST_LISTING", 2.0)
    monkeypatch.setattr(binding, "missing", lambda uri: "")
    made = install(monkeypatch)
    yield made
    for one in worker._workers.values():
        one.close()
    until(lambda: made.open_connections == 0)


@pytest.fixture
def tuner() -> RecordingTuner:
    return RecordingTuner()


def plugin(tuner: RecordingTuner, **sections: dict[str, str]) -> Applied:
    """TuneD's steps for a profile with these sections, up to the last one's apply."""
    made, instances = made_up.plugin(GuestPlugin, tuner, "vm_recorder", sections)
    made.init_devices()
    for instance in instances:
        made.assign_free_devices(instance)
    for instance in instances:
        made.initialize_instance(instance)
    for instance in instances:
        made.instance_apply_tuning(instance)
    return made, instances


def claimed(tuner: RecordingTuner) -> dict[str, str]:
    """Policy by device, as the controller was asked for last."""
    claims = tuner.controller.adjusted[-1]
    assert claims is not None
    return {claim.device: claim.policy for claim in claims.values()}


def test_guests_are_claimed_by_the_section_that_selects_them(
    fake: FakeLibvirt, tuner: RecordingTuner
) -> None:
    fake.domains = [FakeDomain(1, "web1"), FakeDomain(2, "db1")]
    made, instances = plugin(
        tuner, web={"devices": "web*", "policy": "a"}, rest={"devices": "!web*", "policy": "b"}
    )
    assert claimed(tuner) == {"web1": "a", "db1": "b"}
    assert made.instance_verify_tuning(instances[0], False) is True


def test_guests_that_start_restart_and_stop_are_claimed_in_one_turn_each(
    fake: FakeLibvirt, tuner: RecordingTuner
) -> None:
    plugin(tuner, all={"policy": "a"})
    web = FakeDomain(1, "web1")
    for domains in ([web], [FakeDomain(2, "web1", uuid="uuid1")], []):
        lists, adjusts = fake.lists, len(tuner.controller.adjusted)
        fake.domains = domains
        fake.tell(web)
        until(lambda adjusts=adjusts: len(tuner.controller.adjusted) > adjusts)  # type: ignore[misc]
        claims = tuner.controller.adjusted[-1] or {}
        assert set(claims) == {(one.uuid, one.number) for one in domains}
        assert (fake.lists, len(tuner.controller.adjusted)) == (lists + 1, adjusts + 1)


def test_a_guest_that_moves_between_sections_is_claimed_once(
    fake: FakeLibvirt, tuner: RecordingTuner
) -> None:
    fake.domains = [FakeDomain(1, "web1")]
    made, (first, second) = plugin(
        tuner, first={"devices": "web*", "policy": "a"}, second={"devices": "x*", "policy": "b"}
    )
    assert claimed(tuner) == {"web1": "a"}
    turns = len(tuner.controller.adjusted)
    made._remove_devices_nocheck(first, ["web1"])
    worker.libvirt_worker().wake()
    made._add_devices_nocheck(second, ["web1"])
    assert claimed(tuner) == {"web1": "b"}
    assert all(claims is not None for claims in tuner.controller.adjusted[turns:])


def test_the_last_section_that_is_unapplied_releases_all(
    fake: FakeLibvirt, tuner: RecordingTuner
) -> None:
    fake.domains = [FakeDomain(1, "web1"), FakeDomain(2, "db1")]
    made, instances = plugin(tuner, web={"devices": "web*"}, rest={"devices": "!web*"})
    made.instance_unapply_tuning(instances[1])
    assert tuner.controller.adjusted[-1] is not None
    made.instance_unapply_tuning(instances[0])
    assert tuner.controller.adjusted[-1] is None
    for instance in instances:
        made.destroy_instance(instance)
    made.cleanup()


def test_bad_options_are_kept_for_verify(
    fake: FakeLibvirt, tuner: RecordingTuner, caplog: pytest.LogCaptureFixture
) -> None:
    fake.domains = [FakeDomain(1, "web1")]
    made, [instance] = plugin(tuner, all={"policy": "bad"})
    assert claimed(tuner) == {}
    assert made.instance_verify_tuning(instance, False) is False
    assert "verify: failed: 'vm_recorder': option 'policy'" in caplog.text


def ours(folder: Path, text: str, **options: str) -> dict[str, str]:
    """Options of a section that reads a settings file with this text."""
    (folder / "defaults.conf").write_text("vm_policy=shared\nvm_devices=*\nvm_exclude=\n")
    (folder / "v.conf").write_text(text)
    files = {"settings": str(folder / "v.conf"), "defaults": str(folder / "defaults.conf")}
    return {**files, **options}


def test_a_section_reads_its_settings_file(
    fake: FakeLibvirt, tuner: RecordingTuner, tmp_path: Path
) -> None:
    fake.domains = [FakeDomain(1, "web1"), FakeDomain(2, "db1"), FakeDomain(3, "db2")]
    text = "vm_policy=dedicated\nvm_devices=db*\nvm_exclude=db2\n"
    plugin(tuner, vm_recorder=ours(tmp_path, text))
    assert claimed(tuner) == {"db1": "dedicated"}


def test_a_childs_section_reads_the_file_of_the_one_that_comes_after_it(
    fake: FakeLibvirt, tuner: RecordingTuner, tmp_path: Path
) -> None:
    """Its own option and devices come before the file's; what is excluded is nobody's."""
    fake.domains = [FakeDomain(1, "web1"), FakeDomain(2, "web2"), FakeDomain(3, "db1")]
    plugin(
        tuner,
        web={"devices": "web*", "policy": "mine"},
        vm_recorder=ours(tmp_path, "vm_exclude=web2\n"),
    )
    assert claimed(tuner) == {"web1": "mine", "db1": "shared"}


class GroupedTuner(RecordingTuner):
    """Whose policy may be another for groups of guests."""

    options = MappingProxyType(
        {
            "policy": OptionSpec("what is recorded"),
            "policy.GUESTS": OptionSpec("the same of some", refines="policy"),
        }
    )

    def parse(self, options: Mapping[str, str]) -> str:
        return " ".join(f"{name}={text}" for name, text in sorted(options.items()))


def test_groups_of_guests_come_from_the_file_and_from_sections(
    fake: FakeLibvirt, tmp_path: Path
) -> None:
    """A section that has a policy of its own takes no groups from the file."""
    fake.domains = [FakeDomain(1, "web1"), FakeDomain(2, "db1"), FakeDomain(3, "x")]
    file = ours(tmp_path, "vm_policy.db*=node\n")
    (tmp_path / "defaults.conf").write_text("vm_policy=shared\nvm_policy.GUESTS=\n")
    tuner = GroupedTuner()
    made, _ = plugin(
        tuner,
        web={"devices": "web*", "policy": "mine", "policy.web[12]": "own"},
        db={"devices": "db*", "policy.db1 !x": "own"},
        vm_recorder=file,
    )
    assert claimed(tuner) == {
        "web1": "policy=mine policy.web[12]=own",
        "db1": "policy=shared policy.db*=node policy.db1 !x=own",
        "x": "policy=shared policy.db*=node",
    }
    assert made._bad == {}


def test_an_error_in_the_file_holds_for_every_section_that_reads_it(
    fake: FakeLibvirt,
    tuner: RecordingTuner,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fake.domains = [FakeDomain(1, "web1"), FakeDomain(2, "db1")]
    made, instances = plugin(
        tuner, web={"devices": "web*"}, vm_recorder=ours(tmp_path, "vm_polcy=none\n")
    )
    assert claimed(tuner) == {}
    caplog.clear()
    for instance in instances:
        assert made.instance_verify_tuning(instance, False) is False
    said = f"{tmp_path}/v.conf: line 1: 'vm_polcy=none' is not a setting: did you mean vm_policy?"
    assert caplog.text.count(f"verify: failed: 'vm_recorder': {said}") == 2


def test_a_regex_of_udev_selects_no_guest(
    fake: FakeLibvirt, tuner: RecordingTuner, caplog: pytest.LogCaptureFixture
) -> None:
    made, [instance] = plugin(tuner, all={})
    instance._devices_udev_regex = "ID_PATH=.*"
    assert made._get_matching_devices(instance, ["web1"]) == set()
    assert "use devices=" in caplog.text


@pytest.mark.large
def test_a_plugin_object_that_tuned_has_dropped_holds_no_guest(
    fake: FakeLibvirt, tuner: RecordingTuner
) -> None:
    """TuneD 2.20's repository of plugins keeps all that it has ever made."""
    fake.domains = [FakeDomain(1, "web1")]
    made, [instance] = plugin(tuner, all={"policy": "a"})
    made.instance_unapply_tuning(instance)
    made.destroy_instance(instance)
    made.cleanup()
    until(lambda: fake.open_connections == 0)
    reached, left = set(), [made]
    while left:
        one = left.pop()
        if id(one) not in reached and not isinstance(one, (type, ModuleType, FakeLibvirt)):
            reached.add(id(one))
            left += gc.get_referents(one)
            assert not isinstance(one, (FakeDomain, Domain))


def test_what_verify_cannot_read_now_fails_it_in_words(
    fake: FakeLibvirt,
    tuner: RecordingTuner,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unreadable(*_args: object) -> list[str]:
        raise KernelFileError("/sys/devices/system/cpu/isolated", "Too many open files")

    made, [instance] = plugin(tuner, all={"policy": "a"})
    monkeypatch.setattr(tuner, "notes", unreadable)
    assert made.instance_verify_tuning(instance, False) is False
    assert "verify: failed: 'vm_recorder': cannot read /sys/devices" in caplog.text
    assert "internal error" not in caplog.text


def test_a_tuned_that_keeps_what_it_cleans_up_lets_go_of_it(
    fake: FakeLibvirt, tuner: RecordingTuner
) -> None:
    made, [instance] = plugin(tuner, all={"policy": "a"})
    repository = SimpleNamespace(plugins={made})
    manager = Manager(repository, None, 0, None)
    manager.plugins.append(made)
    made.instance_unapply_tuning(instance)
    manager.destroy_all()
    assert made not in repository.plugins


def test_originals_that_cannot_be_read_at_the_start_are_read_again(
    fake: FakeLibvirt,
    tuner: RecordingTuner,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of guests of a libvirt that no section uses any more something may be kept."""
    asked = []

    def uris() -> list[str]:
        asked.append(tuner.name)
        if len(asked) == 1:
            raise OriginalsError("cannot read baseline.json: Too many open files")
        return ["other:///system"]

    restored: list[str] = []
    real = manager.guest_manager

    def guest_manager(one: Any, uri: str) -> Any:
        other = SimpleNamespace(restore_unclaimed=lambda: restored.append(uri))
        return other if uri.startswith("other:") else real(one, uri)

    monkeypatch.setattr(guest_plugin, "guest_manager", guest_manager)
    monkeypatch.setattr(tuner, "uris", uris)
    fake.domains = [FakeDomain(1, "web1")]
    plugin(tuner, all={"policy": "a"})
    until(lambda: restored == ["other:///system"])
    assert claimed(tuner) == {"web1": "a"}
    assert caplog.messages.count("vm_recorder: cannot read baseline.json: Too many open files") == 1
    assert "internal error" not in caplog.text
    assert len(asked) == 2
