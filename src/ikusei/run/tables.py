"""Parquet tables in a run folder: a step's responses, an evaluation's samples. pyarrow is slow to import, so it is imported on use."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ikusei.run.files import whole_file
from ikusei.run.formats import FORMAT, must_be_readable
from ikusei.types import Group, Response

if TYPE_CHECKING:
    import pyarrow as pa

IN_METADATA = b"ikusei.format"

# Types are explicit, so that a column that is all null in one step has the same type in every step.
COLUMNS = {
    "step": "int64",
    "prompt_id": "string",
    "prompt": "string",
    "columns": "string",  # the row's other columns, as JSON
    "response": "string",
    "total": "float64",  # the training reward; null if a reward that counts towards it failed
    "advantage": "float64",
    "kept": "bool",  # trained on
    "stop": "string",
    "num_tokens": "int64",
    "logprob": "float64",  # the sum over the sampled tokens (mask True)
    "version": "int64",
    "seed": "uint64",
}


def responses_table(
    step: int, groups: Sequence[Group], kept: Sequence[bool] | None, advantages: Mapping[tuple[int, int], float]
) -> pa.Table:
    """One row for each response, in the order of `groups`, with two more columns for each reward: its value and its status."""
    import pyarrow as pa

    assert kept is None or len(kept) == len(groups), f"{len(groups)} groups, but {len(kept)} entries in `kept`"
    rewards = sorted({name for group in groups for response in group.responses if response.score for name in response.score.parts})
    kinds = dict(COLUMNS)
    for name in rewards:
        kinds |= {f"rewards/{name}": "float64", f"rewards/{name}/status": "string"}
    schema = pa.schema({name: pa.type_for_alias(kind) for name, kind in kinds.items()})
    return pa.Table.from_pylist(list(response_rows(step, groups, kept, advantages)), schema=schema)


def response_rows(
    step: int, groups: Sequence[Group], kept: Sequence[bool] | None, advantages: Mapping[tuple[int, int], float]
) -> Iterator[dict[str, Any]]:
    for g, group in enumerate(groups):
        columns = json.dumps(dict(group.prompt.columns), ensure_ascii=False, default=str)
        for r, response in enumerate(group.responses):
            parts = response.score.parts if response.score else {}
            yield {
                "step": step,
                "prompt_id": group.prompt.id,
                "prompt": group.prompt.text,
                "columns": columns,
                "response": response.text,
                "total": response.score.total if response.score else None,
                "advantage": advantages.get((g, r)),
                "kept": None if kept is None else kept[g],
                "stop": response.stop,
                "num_tokens": len(response.tokens),
                "logprob": written_logprob(response),
                "version": response.version,
                "seed": response.seed,
                **{f"rewards/{name}": part.value for name, part in parts.items()},
                **{f"rewards/{name}/status": part.status for name, part in parts.items()},
            }


def written_logprob(response: Response) -> float | None:
    if response.logprobs is None:
        return None
    return sum(logprob for logprob, written in zip(response.logprobs, response.mask, strict=True) if written)


def samples_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """One row for each sample, with the columns of `rows`."""
    import pyarrow as pa

    return pa.Table.from_pylist([dict(row) for row in rows])


def write_table(path: Path, table: pa.Table) -> None:
    """Writes the file atomically, with the format version in its metadata."""
    import pyarrow.parquet as pq

    with whole_file(path) as unfinished:
        pq.write_table(table.replace_schema_metadata({IN_METADATA: str(FORMAT)}), unfinished, compression="zstd")


def read_table(path: Path) -> list[dict[str, Any]]:
    """The rows. Raises ValueError if a newer version wrote the table."""
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    number = (table.schema.metadata or {}).get(IN_METADATA)
    must_be_readable({} if number is None else {"format": int(number) if number.isdigit() else number.decode()}, path)
    return table.to_pylist()
