"""Tables as people have them: columns of cells, some of them missing, and the files they make."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet


def messy_columns(seed, rows=200):
    """Lists of cells as people's tables hold them, ``None`` where nothing is."""
    random = np.random.default_rng(seed)

    def some(values, missing):
        gone = random.random(rows) < missing
        return [None if g else v for g, v in zip(gone, values, strict=True)]

    colors = random.choice(
        ["red", "blue", "grün", "a, b", 'q"q'], rows, p=[0.5, 0.3, 0.1, 0.05, 0.05]
    )
    return {
        "size": some((random.standard_normal(rows) * 1e3).tolist(), 0.2),
        "color": some(colors.tolist(), 0.1),
        "rooms": random.integers(0, 5, rows).tolist(),
        "garden": some(random.choice([True, False], rows).tolist(), 0.3),
        "id": [f"no. {number}" for number in range(rows)],
        "few": some(random.choice([f"c{i}" for i in range(40)], rows).tolist(), 0.01),
        "void": [None] * rows,
        "price": (random.standard_normal(rows) + 10).tolist(),
    }


def write_table(columns, name="d.csv"):
    if name.endswith(".parquet"):
        parquet.write_table(pa.table(columns), name)
        return Path(name)

    def cell(value):
        quoted = isinstance(value, str) and any(sign in value for sign in ',"')
        return (
            '"' + value.replace('"', '""') + '"' if quoted else "" if value is None else str(value)
        )

    rows = zip(*columns.values(), strict=True)
    lines = [",".join(columns), *(",".join(map(cell, row)) for row in rows)]
    Path(name).write_text("\n".join(lines) + "\n")
    return Path(name)
