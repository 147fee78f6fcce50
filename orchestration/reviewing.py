"""`seehear review` comes here, as [list | accept ID… | reject ID…] [--new-label LABEL]…: from corrections to data.

`accept` adds what was sent, under its corrected label, by the job `adding`; ID `all` is everything that waits. Exit
codes: 0 something was listed or decided, 1 nothing was; those of faults are serving.cli.apart's.
"""

import sys
from collections import Counter
from collections.abc import Sequence

from ml.config import Paths, UserError, load_settings, project_root
from orchestration import adding, feedback
from orchestration.feedback import ACCEPTED, REJECTED, WAITING, Correction
from orchestration.runs import prepare_instance

DONE, NOTHING = 0, 1
EVERYTHING = "all"
SHOWN = 50


def main(arguments: Sequence[str]) -> int:
    verb, ids, new_labels = _asked(list(arguments))
    settings = load_settings()
    paths = Paths(project_root(), settings.data.source)
    feedback.remove_left(paths)
    media = feedback.kept_media(paths)
    found = feedback.corrections(paths, media, feedback.known_labels(paths, new_labels))
    for line in found.unreadable:
        print(f"seehear: {line}; what it holds is not seen", file=sys.stderr)
    if verb == "list":
        return _list(found)
    chosen = _chosen(found, verb, ids)
    if verb == "accept" and chosen:
        _add(paths, media, chosen)
    feedback.decide(paths, {"accept": ACCEPTED, "reject": REJECTED}[verb], chosen)
    print(f"{verb}ed: {len(chosen)}")
    return DONE if chosen else NOTHING


def _asked(words: list[str]) -> tuple[str, list[str], list[str]]:
    new_labels = []
    while "--new-label" in words:
        at = words.index("--new-label")
        new_labels += words[at + 1 : at + 2]
        del words[at : at + 2]
    match words:
        case [] | ["list"]:
            return "list", [], new_labels
        case ["accept" | "reject" as verb, first, *others]:
            return verb, [first, *others], new_labels
    raise UserError(
        "expected list, accept ID…, or reject ID…, and --new-label LABEL for a label that is new on purpose"
    )


def _list(found: list[Correction]) -> int:
    waiting = [one for one in found if one.state == WAITING]
    for one in waiting[:SHOWN]:
        print(f"{one.request_id}  {one.modality:<6}  {one.answered or 'nothing'} → {one.label}  {one.when}")
    if len(waiting) > SHOWN:
        print(f"… and {len(waiting) - SHOWN} more")
    for state, count in Counter(one.state for one in found).most_common():
        print(f"{state}: {count}")
    if not found:
        print("no corrections yet")
    return DONE if waiting else NOTHING


def _chosen(found: list[Correction], verb: str, ids: Sequence[str]) -> list[Correction]:
    """The corrections of these requests. Raises UserError, with a line for each that cannot be decided so.

    What waits can be accepted; whatever is not yet decided can be rejected.
    """
    open_ones = [one for one in found if one.state not in (ACCEPTED, REJECTED)]
    if list(ids) == [EVERYTHING]:
        return [one for one in open_ones if one.state == WAITING]
    chosen = [one for one in open_ones if one.request_id in ids and (verb == "reject" or one.state == WAITING)]
    states = {one.request_id: one.state for one in found}
    missing = sorted(set(ids) - {one.request_id for one in chosen})
    if missing:
        raise UserError("\n".join(f"{name}: {states.get(name, 'no correction of that request')}" for name in missing))
    return chosen


def _add(paths: Paths, media: feedback.KeptMedia, chosen: Sequence[Correction]) -> None:
    prepare_instance(project_root())
    with feedback.as_folder(paths, media, chosen) as folder:
        adding.report(adding.run({"folder": str(folder)}))
