# SPDX-License-Identifier: GPL-2.0-or-later
"""Saying in a running guest's metadata which of its limits and weights are ours."""

from __future__ import annotations

from tuned_virt.libvirt_api import binding, resource_tag
from tuned_virt.libvirt_api.guest_pins import METADATA_ELEMENT, CallBatch
from tuned_virt.libvirt_api.own_elements import NotXML
from tuned_virt.libvirt_api.resource_tag import ResourceTag, Settings


def tag(do: CallBatch, kind: ResourceTag, changes: Settings) -> None:
    """Before these values are set, say that they are ours, unless the owner has set them there.

    Without changes: take out what is there no longer. A refusal is collected as of any call.
    Raises GuestGone and LibvirtError.
    """
    domain = do.active.domain
    with do.link.asking():
        xml = domain.XMLDesc(0)
    try:
        told = resource_tag.tagged(xml, kind)
        wanted = resource_tag.after(xml, kind, changes)
    except NotXML as error:
        do.refused["metadata"] = str(error)
        return
    if told != wanted:
        text = resource_tag.text(kind, wanted)
        key = kind.key if text else None
        live = binding.libvirt().VIR_DOMAIN_AFFECT_LIVE
        do("metadata", domain.setMetadata, METADATA_ELEMENT, text, key, kind.namespace, live)
