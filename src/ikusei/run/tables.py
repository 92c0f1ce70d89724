"""Parquet tables of a run folder: the responses of a step, the samples of an evaluation. Apart from folder.py, for pyarrow loads slowly."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ikusei.run.files import whole_file
from ikusei.types import Group, Response

# Every type is named, so that a column that is empty in one step still has the type that it has in the others.
COLUMNS = {
    "step": pa.int64(),
    "prompt_id": pa.string(),
    "prompt": pa.string(),
    "columns": pa.string(),  # the row's other columns, as JSON
    "response": pa.string(),
    "total": pa.float64(),  # null: a reward that counts failed
    "advantage": pa.float64(),
    "kept": pa.bool_(),  # trained on
    "stop": pa.string(),
    "num_tokens": pa.int64(),
    "logprob": pa.float64(),  # the sum over the tokens that the policy wrote
    "version": pa.int64(),
    "seed": pa.uint64(),
}


def responses_table(
    step: int, groups: Sequence[Group], kept: Sequence[bool] | None, advantages: Mapping[tuple[int, int], float]
) -> pa.Table:
    """One row a response, in the order of asking, with two columns for each reward: its value and its status."""
    assert kept is None or len(kept) == len(groups), f"{len(groups)} groups, but {len(kept)} say whether they were kept"
    rewards = sorted({name for group in groups for response in group.responses if response.score for name in response.score.parts})
    schema = dict(COLUMNS)
    for name in rewards:
        schema |= {f"rewards/{name}": pa.float64(), f"rewards/{name}/status": pa.string()}
    return pa.Table.from_pylist(list(response_rows(step, groups, kept, advantages)), schema=pa.schema(schema))


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
    """One row a sample; the columns are those that the rows have."""
    return pa.Table.from_pylist([dict(row) for row in rows])


def write_table(path: Path, table: pa.Table) -> None:
    with whole_file(path) as unfinished:
        pq.write_table(table, unfinished, compression="zstd")


def read_table(path: Path) -> list[dict[str, Any]]:
    """The rows."""
    return pq.read_table(path).to_pylist()
