"""What the tags of a series say about intravenous contrast; they may be copied from another series, so never more."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from pydicom import Dataset

from dicom_node.broken import BROKEN
from dicom_node.decode.files import Header
from dicom_node.decode.series import Acquisition

#: Agent: none was given.
_NO_AGENT = re.compile(
    r"(?:N|N/?A|NIL|-+|0+(?: ?ML)?|FALSE|NEGATIVE)$|(?:NO|NONE|NOT|WITHOUT|W/O|WO|OHNE|KEINE?|SANS|SENZA|"
    r"UNENHANCED|NATIVE?|PLAIN|NON[- ]?(?:CONTRAST|ENHANCED))\b"
)
#: Agent: nothing is said.
_PLACEHOLDER = re.compile(r"[?. ]*$|(?:UNKNOWN|UNSPECIFIED|OTHER|N/?K)\b")
#: Agent or route: into the gut or another cavity, which makes no tissue enhance.
_NOT_INTO_BLOOD = re.compile(
    r"\b(?:P?ORAL\w*|PER ?OS|P\.?O|BY MOUTH|RECTA?L?\w*|RECTUM|P\.?R|ENTER(?:AL|IC)\w*|ENEMA|GASTRO\w*|BARI?UM|WATER|"
    r"MANNITOL|MILK|VOLUMEN|BREEZA|READI-?CAT|E-?Z-?CAT|INTRATHECAL|INTRA-?ARTICULAR|INTRALUMINAL|INTRAVESICAL|"
    r"INTRAPERITONEAL|INTRACAVITARY|NASAL|VAGINAL|TOPICAL|INHAL\w*)\b"
)
#: The same routes as codes: oral, rectal, nasal, vaginal, topical, inhaled, intrathecal, intra-articular, intraluminal,
#: intraperitoneal (PS3.16 CID 11, SNOMED CT), and oral and rectal as SNOMED RT had them.
_NOT_INTO_BLOOD_CODES = (
    "26643006", "37161004", "46713006", "16857009", "6064005", "446406008", "72607000", "12130007", "37737002",
    "38239002", "G-D140", "G-D160",
)  # fmt: skip
_INTO_BLOOD = re.compile(r"\b(?:I\.?V|INTRAVENOUS\w*|INTRAVASCULAR\w*|INTRA-?ARTERIAL\w*|VEIN|VENOUS)\b")
#: Description: before contrast, or without it ("without" may also speak of fat suppression or breath hold).
_WITHOUT_CONTRAST = re.compile(
    r"\b(?:(?:WITHOUT|W/O|WO|OHNE|SANS|SENZA)(?! *(?:FS|FAT|SPAIR|STIR|BH|BREATH|TRIG|GAT))|BEFORE|VOR|AVANT|"
    r"PRE|PRE-?(?:CONTRAST|GD|GADO?\w*|KM|C)|UNENHANCED|NATIVE?|NATIF|PLAIN|NECT|NCCT|"
    r"NON?[- ]?(?:IV )?(?:CON|CONTRAST|ENHANCED|GD|GADO?\w*|KM|CE))\b|\bC-(?!\w)"
)
#: Description: after contrast. Neither a bare "post", which here may be the ablation, nor "enhanced" (eTHRIVE) counts.
_WITH_CONTRAST = re.compile(
    r"\b(?:(?:POST[- ]?)?(?:GD|GADO?)\w*|DOTAREM|PRIMOVIST|EOVIST|MAGNEVIST|MULTIHANCE|PROHANCE|OMNISCAN|CLARISCAN|"
    r"ELUCIREM|VUEWAY|KM|CE|C\+|POST[- ]?C|(?:POST|WITH|W/?|IV)[- ]?CONTRAST|CONTRAST[- ]?ENHANCED)(?!\w)|"
    r"\+ ?(?:C|CONTRAST)\b"
)


def contrast_told(acquisition: Acquisition) -> tuple[bool | None, str]:
    """Whether the tags say that the image shows contrast in the blood, None where they do not tell; and a sentence.

    What speaks against contrast wins. The description of a CT never speaks for it (docs/decisions/0012).
    """
    header = acquisition.header
    description = header.text("SeriesDescription").upper().replace("_", " ")
    if _WITHOUT_CONTRAST.search(description):
        return False, "Its description says that it was scanned without contrast."
    if _not_yet_given(acquisition):
        return False, "Its tags say that the contrast agent had not been given yet."
    agent = header.text("ContrastBolusAgent").upper()
    if _NO_AGENT.match(agent):
        return False, "Its tags say that no contrast agent was given."
    if _reached_blood(header, agent):
        return True, "Its tags name a contrast agent."
    if acquisition.quantity == "mr_signal" and _WITH_CONTRAST.search(description):
        return True, "Its description names contrast."
    if agent and not _PLACEHOLDER.match(agent):
        return None, "Its tags name only a contrast agent that was not given into the blood."
    return None, "Its tags name no contrast agent."


def _reached_blood(header: Header, agent: str) -> bool:
    """Whether an agent is named that was, by its route and name, not only given into the gut or another cavity."""
    agents = _items(header.dataset, "ContrastBolusAgentSequence")
    if not agents and (not agent or _PLACEHOLDER.match(agent)):
        return False
    words = (agent, header.text("ContrastBolusRoute").upper())
    outer = _items(header.dataset, "ContrastBolusAdministrationRouteSequence")
    return any(
        _into_blood(
            (*words, _text(item, "CodeMeaning")), [*outer, *_items(item, "ContrastBolusAdministrationRouteSequence")]
        )
        for item in agents or [Dataset()]
    )


def _into_blood(words: Iterable[str], routes: list[Dataset]) -> bool:
    told = " / ".join([*words, *(_text(item, "CodeMeaning") for item in routes)])
    if _INTO_BLOOD.search(told):
        return True
    coded = any(_text(item, "CodeValue") in _NOT_INTO_BLOOD_CODES for item in routes)
    return not (coded or _NOT_INTO_BLOOD.search(told))


def _not_yet_given(acquisition: Acquisition) -> bool:
    """Whether a multi-frame image says of this volume's frames that no agent was administered before them."""
    frame = acquisition.frames[0]
    per_frame = _items(frame.header.dataset, "PerFrameFunctionalGroupsSequence")
    groups = [*per_frame[frame.number : frame.number + 1]]
    groups += _items(frame.header.dataset, "SharedFunctionalGroupsSequence")
    used = [item for group in groups for item in _items(group, "ContrastBolusUsageSequence")]
    return bool(used) and all(_text(item, "ContrastBolusAgentAdministered") == "NO" for item in used)


def _text(item: Dataset, keyword: str) -> str:
    try:
        return str(item.get(keyword) or "").strip().upper()
    except BROKEN:
        return ""


def _items(dataset: Dataset, keyword: str) -> list[Dataset]:
    try:
        value: Any = dataset.get(keyword)
        return list(value) if value else []
    except BROKEN:
        return []
