"""Files that other people may have written: opened only as regular files of their folder, read only into known shapes.

Each shape below is a `TypedDict`; `parsed` checks a text against it whole, so that what comes out can be used without
further questions. Nothing is imported, built or executed on the way.
"""

import functools
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from pydantic import (
    AfterValidator,
    AliasChoices,
    ConfigDict,
    Field,
    FiniteFloat,
    JsonValue,
    TypeAdapter,
    ValidationError,
    with_config,
)
from typing_extensions import TypedDict

from rnnstudy.errors import shown
from rnnstudy.run import key_of
from rnnstudy.store.errors import DamagedFile

LARGEST_DOCUMENT = 2**24
"""The most bytes of a file that describes runs: ours have some thousands."""

LARGEST_TABLE = 2**30
"""The most bytes of a file with points of runs, or of a table."""

Key = Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
Line = Annotated[str, Field(max_length=1000, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
"""One line without control characters: terminals obey those."""
Text = Annotated[str, Field(max_length=2**22, pattern=r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*$")]
FileName = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f/\\.][^\x00-\x1f\x7f-\x9f/\\]*$")]
"""The name of a file in its folder; it leads to no other folder."""
Count = Annotated[int, Field(ge=0, lt=2**53)]
Tags = dict[Line, Text]
Plain = None | bool | Annotated[int, Field(ge=-(2**63), lt=2**63)] | FiniteFloat | Text
Number = Annotated[int, Field(ge=-(2**53), lt=2**53)] | FiniteFloat

STRICT = with_config(ConfigDict(strict=True, extra="forbid"))
OPEN = with_config(ConfigDict(strict=True, extra="allow"))
"""Later versions may add fields, which are kept."""


@OPEN
class ShortParametersShape(TypedDict):
    """`Run.short_parameters`, by which tables are grouped."""

    task: Line
    cell: Line
    length: Count
    width: Count
    layers: Count
    seed: Count
    learning_rate: FiniteFloat


Parameters = Annotated[
    dict[Line, Plain | list[Plain | list[Plain]]],
    AfterValidator(lambda found: found | _adapter(ShortParametersShape).validate_python(found)),
]
"""A run's fields by their dotted paths and short names."""


@STRICT
class DataSetShape(TypedDict):
    """`documents.data_set`; `symbols` is absent in what was written before 2026-12."""

    name: Line
    digest: Key
    generator: Line
    task: dict[Line, JsonValue]
    seed: int
    steps: Count
    features: Count
    symbols: NotRequired[bool]
    outputs: Count


@STRICT
class Nothing(TypedDict):
    """An empty mapping."""


@STRICT
class DescriptionShape(TypedDict):
    """`run_description.Description`; `documents` was called `papers` before 2026-12."""

    key: Key
    name: Line
    experiment: FileName
    steps: Count
    parameters: Parameters
    tags: Tags
    documents: Annotated[dict[FileName, Text], Field(validation_alias=AliasChoices("documents", "papers"))]
    data_set: DataSetShape | Nothing
    hypothesis: Text


EndingTagsShape = STRICT(
    TypedDict(
        "EndingTagsShape",
        {
            "rnnstudy.outcome": Literal["finished", "diverged", "pruned", "failed"],
            "rnnstudy.engine": NotRequired[Line],
            "rnnstudy.reason": NotRequired[Text],
            "rnnstudy.solved": NotRequired[Literal["true", "false"]],
            "rnnstudy.attempts": NotRequired[Annotated[str, Field(pattern=r"^[0-9]{1,6}$")]],
        },
    )
)
"""`OpenRun.ending_tags`."""


@STRICT
class EndingShape(TypedDict):
    """What `ending.json` holds."""

    tags: EndingTagsShape
    time: FiniteFloat


PointShape = tuple[Annotated[Line, Field(pattern=r"^[\w /.:-]+$")], Count, FiniteFloat, Count]


def _with_nested(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a specification, those that are specifications checked like itself."""
    for value in fields.values():
        if isinstance(value, dict):
            _adapter(SpecificationShape).validate_python(value)
    return fields


Fields = Annotated[dict[Line, JsonValue], AfterValidator(_with_nested)]

SpecificationShape = STRICT(
    TypedDict(
        "SpecificationShape",
        {"class": Line, "version": NotRequired[Count], "fields": Fields, "located": NotRequired[dict[Line, Line]]},
    )
)
"""`spec.canonical` of a specification, or `Run.described`."""

DESCRIBING = {"spec": SpecificationShape, "probes": list[SpecificationShape], "code": dict[Line, Line]}
"""The tags `rnnstudy.…` of a run that hold JSON, and its shapes."""


@OPEN
class OutcomeShape(TypedDict):
    """How a run ended, in its header."""

    status: Literal["finished", "diverged", "pruned", "failed", "running"]
    step: Count
    solved: bool | None
    steps_to_solve: Count | None
    seconds: FiniteFloat
    engine: Line
    reason: NotRequired[Text]


@OPEN
class HeaderShape(TypedDict):
    """`open_run.run_header`: description and outcome of a run."""

    key: Key
    name: Line
    experiment: Line
    parameters: Parameters
    tags: Tags
    outcome: OutcomeShape
    summary: dict[Line, FiniteFloat]
    time: FiniteFloat


@STRICT
class LabelsShape(TypedDict):
    """`Series.labels`."""

    axes: list[Annotated[Line, Field(pattern=r"^\w+$")]]
    unit: Line
    spacing: Count
    coordinates: dict[Line, list[Number]]


@OPEN
class ReadingsShape(TypedDict):
    """The manifest of `readings.npz`."""

    run: HeaderShape
    series: dict[Annotated[str, Field(pattern=r"^\w[\w/.-]{0,200}$")], LabelsShape]


WORDS = {"string_pattern_mismatch": "a text of another form, or with characters that are not allowed there"}
"""What is said in place of pydantic's sentence about a kind of error."""


@functools.cache
def _adapter(shape: Any) -> TypeAdapter[Any]:
    return TypeAdapter(shape)


def parsed(text: str | bytes, shape: Any, what: str) -> Any:
    """The JSON `text` as plain values of this `shape`. Raises `DamagedFile`, with `what` at its beginning."""
    try:
        return _adapter(shape).validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        reason = WORDS.get(first["type"], first["msg"])
        raise DamagedFile(f"{what} ({f'{shown(where)}: ' if where else ''}{reason})") from None


def regular_file(folder: Path, name: str, largest: int | None = None) -> Path:
    """The file `name` in `folder`, which must be a regular file, in this folder, of at most `largest` bytes.

    A link could lead to any file of this machine, and what is read here may be copied into a store. Raises
    `FileNotFoundError` where there is nothing, `DamagedFile` for anything else.
    """
    path = folder / name
    status = os.lstat(path)
    if not stat.S_ISREG(status.st_mode):
        raise DamagedFile(f"{path} is not a regular file; links and devices are not followed")
    if not path.resolve().is_relative_to(folder.resolve()):
        raise DamagedFile(f"{path} lies outside {folder}")
    if largest is not None and status.st_size > largest:
        raise DamagedFile(f"{path} has {status.st_size} bytes; such a file has at most {largest}")
    return path


def inert_markdown(text: str) -> str:
    """Markdown whose HTML is text, and which calls no script: MLflow's pages show it.

    >>> inert_markdown("less than 3 < 4 <script>x</script> [y](javascript:z)")
    'less than 3 < 4 &lt;script>x&lt;/script> [y](javascript :z)'
    """
    return re.sub(r"(?i)\b(java|vb)script:", r"\1script :", re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text))


def require_own_key(described: Mapping[str, Any], what: str) -> None:
    """Raises `DamagedFile` unless the tags of a described run hold a specification, and its hash is the run's key."""
    tags = described["tags"]
    found = describing_tags(tags, f"{what}: its tag")
    if not key_of(found["spec"]) == described["key"] == tags.get("rnnstudy.key"):
        raise DamagedFile(f"{what}: its key {described['key']} is not the hash of its specification")


def describing_tags(tags: Mapping[str, str], what: str) -> dict[str, Any]:
    """What the tags that describe a run hold. Raises `DamagedFile`, with `what` before the name of the first that is
    damaged or gone."""
    # Runs of before 2026-12 have another tag for the code.
    absent = {"code": tags.get("rnnstudy.source", "{}")}
    return {
        name: parsed(tags.get(f"rnnstudy.{name}", absent.get(name, "")), shape, f"{what} rnnstudy.{name} is damaged")
        for name, shape in DESCRIBING.items()
    }
