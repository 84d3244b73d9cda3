# SPDX-License-Identifier: GPL-2.0-or-later
"""What switching from one profile to another would change."""

from __future__ import annotations

import importlib.util

import pytest

from tests.unit.tuned_api.preview.profiles import NOW, PATH, SETTING, Profiles, one, reasons
from tuned_virt.core.preview import Knowledge
from tuned_virt.tuned_api.preview import switch
from tuned_virt.tuned_api.preview.profile import CannotLoad
from tuned_virt.tuned_api.preview.shadow import reading

SET = f"[sysctl]\n{SETTING}="
OTHER = str(int(NOW) + 7)


def test_a_value_its_line_and_nothing_changed(profiles: Profiles) -> None:
    found = one(profiles.preview(f"{SET}{OTHER}\n"))
    assert (found.plugin, found.section, found.setting) == ("sysctl", "sysctl", SETTING)
    assert (found.before.value, found.after.value, found.path) == (NOW, OTHER, PATH)
    assert str(found.wanted_by) == f"{profiles.folder}/new/tuned.conf:4"
    assert reading(PATH).value == NOW


def test_what_is_so_already_is_counted(profiles: Profiles) -> None:
    found = profiles.preview(f"{SET}{NOW}\n")
    assert (found.changes, found.unchanged) == ([], 1)


@pytest.mark.parametrize(
    ("wanted", "after"), [(">1", NOW), ("<1", "1"), (">99999", "99999"), ("<99999", NOW)]
)
def test_tuneds_modifiers(profiles: Profiles, wanted: str, after: str) -> None:
    found = profiles.preview(f"{SET}{wanted}\n")
    assert one(found).after.value == after
    assert found.unchanged == (after == NOW)


def test_variables_functions_and_a_variables_file(profiles: Profiles) -> None:
    file = profiles.folder / "variables.conf"
    file.write_text(f"more={OTHER}\n")
    text = f"[variables]\nmore=1\ninclude={file}\n{SET}${{f:strip: ${{more}} }}\n"
    assert one(profiles.preview(text)).after.value == OTHER


def test_the_includes_are_merged_as_tuned_merges_them(profiles: Profiles) -> None:
    profiles.write("parent", f"{SET}1\nfs.inotify.max_user_instances=>1\n[vm]\ndirty_ratio=1\n")
    text = f"include=parent\n[sysctl]\ndrop=fs.inotify.max_user_instances\n{SETTING}={OTHER}\n"
    found = profiles.preview(text + "[vm]\nuname_regex=^no-such-machine$\n")
    assert one(found).after.value == OTHER


def test_a_line_of_an_included_profile_is_named(profiles: Profiles) -> None:
    file = profiles.write("parent", f"{SET}{OTHER}\n")
    assert str(one(profiles.preview("include=parent,-nothing\n")).wanted_by) == f"{file}:4"


def test_a_section_of_another_name_and_several_of_a_type(profiles: Profiles) -> None:
    text = f"[late]\ntype=sysctl\npriority=10\n{SETTING}={OTHER}\n{SET}1\n"
    assert one(profiles.preview(text)).after.value == OTHER


def test_what_the_active_profile_set_returns(profiles: Profiles) -> None:
    """Only its own process knows the original, unless crash_guard has kept it."""
    found = one(profiles.preview("", active=f"{SET}{NOW}\n"))
    assert found.after.knowledge is Knowledge.UNKNOWN
    assert "only its process knows" in found.after.why
    assert found.wanted_by is None
    text = f"{SET}{NOW}\n[crash_guard]\nfiles={PATH}\n"
    kept = one(profiles.preview("", active=text, guarded={PATH: OTHER}))
    assert (kept.before.value, kept.after.value) == (NOW, OTHER)


def test_originals_of_before_are_not_put_back_by_profiles_without_crash_guard(
    profiles: Profiles,
) -> None:
    assert profiles.preview("", guarded={PATH: OTHER}).values == []
    assert profiles.preview("[crash_guard]\n", guarded={PATH: OTHER}).changes != []


@pytest.mark.parametrize(
    ("asked", "wanted", "after"),
    [
        (f">{NOW}", f">{NOW}", NOW),
        (f">{NOW}", f">{OTHER}", OTHER),
        (f">{NOW}", ">1", None),
        (NOW, f"<{OTHER}", None),
        (">1", f">{OTHER}", OTHER),
        (">1", ">2", NOW),
        (NOW, OTHER, OTHER),
    ],
)
def test_a_modifier_compares_with_the_original(
    profiles: Profiles, asked: str, wanted: str, after: str | None
) -> None:
    found = one(profiles.preview(f"{SET}{wanted}\n", active=f"{SET}{asked}\n"))
    if after is None:
        assert found.after.knowledge is Knowledge.UNKNOWN
        assert "compares with the original" in found.after.why
    else:
        assert found.after.value == after


def test_a_modifier_that_changed_nothing_leaves_nothing_to_undo(profiles: Profiles) -> None:
    found = profiles.preview("", active=f"{SET}>1\n")
    assert (found.changes, found.unchanged) == ([], 1)


def test_a_kept_original_is_what_a_modifier_compares_with(profiles: Profiles) -> None:
    active = f"{SET}{NOW}\n[crash_guard]\n"
    found = profiles.preview(f"{SET}>2\n", active=active, guarded={PATH: "3"})
    assert one(found).after.value == "3"


def test_variables_of_the_active_profile_stay_known(profiles: Profiles) -> None:
    """TuneD does not clear them at a switch (redhat-performance/tuned issue 76)."""
    active = f"[variables]\nmine={OTHER}\n"
    assert one(profiles.preview(f"{SET}${{mine}}\n", active=active)).after.value == OTHER
    undefined = profiles.preview(f"{SET}${{mine}}\n")
    assert [str(remark) for remark in undefined.refused] == [
        f"sysctl: {SETTING}: '${{mine}}' is not set: it is not a number"
    ]


def test_the_post_loaded_profile_counts(profiles: Profiles) -> None:
    profiles.write("late", f"{SET}{OTHER}\n")
    (profiles.folder / "post_loaded_profile").write_text("late\n")
    assert one(profiles.preview(f"{SET}1\n")).after.value == OTHER


def test_what_tuned_refuses_to_load(profiles: Profiles) -> None:
    profiles.write("broken", "[no end\n")
    for names in (["nothing"], ["broken"], ["../x"]):
        with pytest.raises(CannotLoad):
            switch.preview([], names, {})


def test_an_active_profile_that_is_gone_is_not_passed_over(profiles: Profiles) -> None:
    profiles.write("new", f"{SET}{OTHER}\n")
    found, _ = switch.preview(["gone"], ["new"], {})
    assert "it cannot be loaded any more" in reasons(found)[0]
    assert one(found).after.value == OTHER


# --- what the kernel would not take ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "[sysfs]\n/sys/kernel/mm/transparent_hugepage/enabled=sometimes\n",
            "the kernel offers only",
        ),
        ("[vm]\ntransparent_hugepage.defrag=soon\n", "the kernel offers only"),
    ],
)
def test_a_word_that_the_kernel_does_not_offer(profiles: Profiles, text: str, reason: str) -> None:
    found = profiles.preview(text)
    assert found.values == []
    assert reason in str(found.refused)


def test_a_setting_that_is_not_there(profiles: Profiles) -> None:
    found = profiles.preview("[sysctl]\nkernel.no_such_thing=1\n")
    assert found.values == []
    assert "kernel.no_such_thing" in str(found.refused)


# --- plugins that do something else ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[modules]\nnone_such=+r\n", "modules: tuned-virt does not know what this plugin changes"),
        ("[mine]\nx=1\n", "mine: tuned-virt does not know what this plugin changes: x=1"),
        ("[script]\nscript=a.sh\n", "/new/a.sh, which a preview does not"),
        (f"{SET}1\nscript_post=${{i:PROFILE_DIR}}/b.sh\n", "/new/b.sh, which a preview does not"),
    ],
)
def test_what_cannot_be_told_is_named(profiles: Profiles, text: str, reason: str) -> None:
    assert any(reason in one for one in reasons(profiles.preview(text)))


def test_whom_the_scheduler_plugin_moves_is_not_known(profiles: Profiles) -> None:
    """On Debian that plugin needs a module of linux-perf: without it TuneD leaves it out."""
    found = profiles.preview("[scheduler]\ngroup.x=0:f:1:*:x\n")
    if importlib.util.find_spec("perf"):
        known = "which processes and interrupts it moves: group.x"
        assert any(known in one for one in reasons(found))
    else:
        assert "TuneD cannot load this plugin" in str(found.refused)


def test_what_undoing_such_a_plugin_changes_is_named_too(profiles: Profiles) -> None:
    found = profiles.preview("", active="[modules]\nnone_such=+r\n")
    assert reasons(found) == [
        "modules: set by the active profile, and undone: tuned-virt does not know what this"
        " plugin changes: none_such=+r"
    ]


def test_kernel_arguments_of_the_next_boot(profiles: Profiles) -> None:
    found = one(profiles.preview("[bootloader]\ncmdline=a=1\ncmdline_b=+b=2\ncmdline_c=-a=1\n"))
    assert (found.plugin, found.setting, found.after.value) == ("bootloader", "cmdline", "b=2")
    undone = profiles.preview("", active="[bootloader]\ncmdline=a=1\n")
    assert one(undone).after.value == ""


def test_sysfs_by_a_pattern(profiles: Profiles) -> None:
    text = "[sysfs]\n/sys/kernel/mm/transparent_hugepage/khugepaged/*_to_scan=4097\n"
    found = one(profiles.preview(text))
    assert found.setting == "/sys/kernel/mm/transparent_hugepage/khugepaged/pages_to_scan"
    assert str(found.wanted_by).endswith("/new/tuned.conf:4")
    assert found.unit == "pages"


def test_a_pair_of_which_the_kernel_zeroes_one(profiles: Profiles) -> None:
    bytes_now = reading("/proc/sys/vm/dirty_bytes").value
    found = profiles.preview("[sysctl]\nvm.dirty_bytes=409600000\n")
    assert found.values[0].after.value == "409600000"
    if bytes_now == "0":
        [ratio] = found.values[1:]
        assert (ratio.setting, ratio.after.value) == ("vm.dirty_ratio", "0")
        assert ratio.why == "the kernel zeroes it when dirty_bytes is set"


def test_an_error_that_tuned_would_log_is_refused(profiles: Profiles) -> None:
    found = profiles.preview(f"[variables]\na-b=1\n{SET}{OTHER}\n")
    assert [str(remark) for remark in found.refused] == [
        "profile: TuneD says: variable definition 'a-b' contains unallowed characters"
    ]


def test_a_warning_that_tuned_would_log_is_a_note(profiles: Profiles) -> None:
    found = profiles.preview("[vm]\nno_such_option=1\n")
    [note] = found.notes
    assert str(note).startswith("vm: TuneD says: Unknown option 'no_such_option'")
