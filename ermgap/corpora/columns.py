"""Names of columns as people write them: known ones recognised, the others reported.

Letter case and surrounding blanks do not count. A column under another name is not read; a sentence
says which name it should have.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from ermgap.attributes import RESERVED
from ermgap.config import GENDER, one_line, quoted
from ermgap.errors import UserError

MOST = 20  # columns that a sentence lists
PREFIX = "group:"  # of a column that holds an attribute
_ATTRIBUTE = re.compile(r"\w[\w .-]*")
LOOK_ALIKES = {
    "path": "file filename filepath audio audiofile audiopath audiofilepath wav wavfile wavpath "
            "clip clippath recording location",
    "language": "lang languagecode langcode langid locale",
    "emotion": "label emotionlabel class category emo target",
    "gender": "sex speakergender speakersex",
    "split": "partition set subset fold splittype usage traintest datasetsplit splitset splitname",
    "speaker": "speakerid speakername spk spkid actor actorid subject subjectid participant "
               "participantid person personid voice clientid user userid",
    "split_group": "groupid dialogue dialogueid dialog dialogid diaid session sessionid "
                   "conversation conversationid",
    "start_s": "start begin onset from startsec startseconds starttime begintime",
    "end_s": "end stop finish until endsec endseconds endtime stoptime",
    "start_s or end_s": "offset offsets",
    "transcript": "text transcription sentence rawtext normalizedtext words caption script",
    "synthetic": "issynthetic fake tts",
    "utterance_id": "uttid id utterance clipid segmentid",
    "corpus": "corpusname dataset datasetname",
}  # fmt: skip
_NAMES = {other: name for name, others in LOOK_ALIKES.items() for other in others.split()}
_NAMES |= {name.replace("_", ""): name for name in LOOK_ALIKES if " " not in name}


def attribute_columns(names: Sequence[str], *, asked: Iterable[str], where: str) -> dict[str, str]:
    """The attribute of each column that holds one, by the column's name without its blanks.

    These are `group:<name>`, whatever the name, and <name> alone where it is among those `asked`
    for, which decide on letter case. Raises UserError for a name that no attribute can have, and
    for an attribute of two columns.
    """
    spelling = {_folded(name): name for name in (*asked, GENDER) if name not in RESERVED}
    attributes: dict[str, str] = {}
    for written in map(_bare, names):
        is_group = written.casefold().startswith(PREFIX)
        bare = written[len(PREFIX) * is_group :].strip()
        if not is_group and bare.casefold() not in spelling:
            continue
        name = spelling.get(bare.casefold(), bare)
        subject = f"{where} has the column {quoted(written)}"
        if bare.casefold() in RESERVED or bare.casefold().startswith("logp_"):
            raise UserError(
                f"{subject}, but {one_line(bare)} is no attribute: the table has a column of that "
                f"name; rename yours, such as to {PREFIX}{one_line(bare)}_type."
            )
        if not _ATTRIBUTE.fullmatch(name):
            raise UserError(
                f"{subject}; write a name of letters, digits, blanks, dots, hyphens or "
                f"underscores after {PREFIX}."
            )
        if first := next((old for old, same in attributes.items() if same == name), ""):
            raise UserError(
                f"{where} has the columns {quoted(first)} and {quoted(written)}, which are both "
                f"the attribute {name}; keep one, or rename it."
            )
        attributes[written] = name
    return attributes


def recognised(
    names: Sequence[str],
    *,
    known: Iterable[str],
    where: str,
    attributes: Mapping[str, str] | None = None,
) -> list[str]:
    """The names, those of `known` in its spelling and the others without surrounding blanks.

    `attributes` is as from `attribute_columns`, whose columns are named by their attribute. Raises
    UserError where two columns have one name.
    """
    spelling = {_folded(name): name for name in known}
    by_column = attributes or {}
    result = [
        by_column.get(_bare(name)) or spelling.get(_folded(name), _bare(name)) for name in names
    ]
    first: dict[str, str] = {}
    for name, written in zip(result, names, strict=True):
        if name and name in first:
            same = first[name] == written
            raise UserError(
                f"{where} has the column {quoted(written)} twice; keep one."
                if same
                else f"{where} has the columns {quoted(first[name])} and {quoted(written)}, which "
                f"are both read as {name}; keep one."
            )
        first[name] = written
    return result


def likely_column(name: str) -> str:
    """The column that a name probably stands for, or "" where none is like it."""
    bare = re.sub(r"[\W_]", "", name.casefold())[:40]
    near = [bare] if bare in _NAMES else difflib.get_close_matches(bare, _NAMES, n=1, cutoff=0.85)
    return _NAMES[near[0]] if near else ""


def missing_hint(
    missing: Sequence[str], names: Sequence[str], *, with_attributes: bool = False
) -> str:
    """The columns that a file has in place of the missing ones, and which to rename.

    `with_attributes`: of a file where another attribute may stand in the place of gender.
    """
    audio = {"path": "audio"} if "audio" in missing else {}  # so `hf` calls the column
    columns = {name: likely_column(name) for name in names[: 10 * MOST] if name}
    like = [
        f"rename {quoted(name)} to {audio.get(column, column)}"
        for name, column in columns.items()
        if audio.get(column, column) in missing
    ]
    names = one_line(", ".join(filter(None, names))) or "no names"
    if with_attributes and GENDER in missing and not like:
        like = ["without genders, name what is compared: --set data.attributes=[NAME] and "
                "objective.attribute=[NAME]"]  # fmt: skip
    return f"it has {names}" + (f"; {' and '.join(like[:MOST])}" if like else "")


def unread_notes(names: Iterable[str], *, read: Collection[str], where: str) -> tuple[str, ...]:
    """A sentence on the columns `names` that are not read, if there are any, look-alikes first.

    `read` are the columns that are read: another column is not called a look-alike of these.
    """
    names = [name for name in dict.fromkeys(map(_bare, names)) if name]
    if not names:
        return ()
    columns = {name: likely_column(name) for name in names[: 10 * MOST]}
    # A group may be named in either of two ways.
    taken = set(read) | ({"split_group"} if "group" in read else set())
    like = {name: column for name, column in columns.items() if column and column not in taken}
    listed = [f"{quoted(name)} (rename it if it is {column})" for name, column in like.items()]
    listed = (listed + [quoted(name) for name in names if name not in like])[:MOST]
    rest = f" and {len(names) - MOST} more" if len(names) > MOST else ""
    return (f"{where} has columns that are not read: {', '.join(listed)}{rest}",)


def _bare(name: str) -> str:
    """A name without byte order marks and without blanks around it."""
    return name.replace("\ufeff", "").replace("\u200b", "").strip()


def _folded(name: str) -> str:
    return _bare(name).casefold()
