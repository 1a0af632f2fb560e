"""Small real files in the formats that others publish, with the column types they have."""

import io
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

PICK_A_PIC_V2 = pa.schema(
    [
        ("are_different", pa.bool_()),
        ("best_image_uid", pa.string()),
        ("caption", pa.string()),
        ("created_at", pa.timestamp("ns")),
        ("has_label", pa.bool_()),
        ("image_0_uid", pa.string()),
        ("image_0_url", pa.string()),
        ("image_1_uid", pa.string()),
        ("image_1_url", pa.string()),
        ("jpg_0", pa.binary()),
        ("jpg_1", pa.binary()),
        ("label_0", pa.float64()),
        ("label_1", pa.float64()),
        ("model_0", pa.string()),
        ("model_1", pa.string()),
        ("ranking_id", pa.int64()),
        ("user_id", pa.int64()),
        ("num_example_per_prompt", pa.int64()),
        ("__index_level_0__", pa.int64()),
    ]
)


def image_bytes(seed: int, *, file_format: str = "JPEG", size: tuple[int, int] = (40, 36)) -> bytes:
    """An image of coarse coloured noise, another one for every seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(buffer, file_format, quality=95)
    return buffer.getvalue()


def pick_a_pic_row(index: int, **changes: Any) -> dict[str, Any]:
    """Row `index`: image 0 wins the even ones, image 1 the odd ones; five prompts in turn."""
    wins = float(index % 2 == 0)
    row = {
        "are_different": True,
        "best_image_uid": f"{index}-{0 if wins else 1}",
        "caption": f"a {('red', 'blue', 'green', 'pink', 'grey')[index % 5]} cat",
        "created_at": datetime(2023, 5, 1, 12, 0, 0),
        "has_label": True,
        "image_0_uid": f"{index}-0",
        "image_0_url": f"https://example.invalid/{index}-0.png",
        "image_1_uid": f"{index}-1",
        "image_1_url": f"https://example.invalid/{index}-1.png",
        "jpg_0": image_bytes(2 * index),
        "jpg_1": image_bytes(2 * index + 1),
        "label_0": wins,
        "label_1": 1 - wins,
        "model_0": "some-model",
        "model_1": "another-model",
        "ranking_id": index,
        "user_id": 7,
        "num_example_per_prompt": 2,
        "__index_level_0__": index,
    }
    return row | changes


def write_pick_a_pic(
    path: Path, rows: Sequence[Mapping[str, Any]], *, leave_out: Sequence[str] = (), row_group_size: int = 4
) -> Path:
    """Rows as one parquet file with the published column types."""
    schema = pa.schema([field for field in PICK_A_PIC_V2 if field.name not in leave_out])
    columns = {name: [row[name] for row in rows] for name in schema.names}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns, schema=schema), path, row_group_size=row_group_size)
    return path


def mixed_rows() -> list[dict[str, Any]]:
    """Twelve rows: seven choices, two ties, one without label, one broken image, one of identical images."""
    rows = [pick_a_pic_row(index) for index in range(12)]
    for index in (2, 7):
        rows[index] |= {"label_0": 0.5, "label_1": 0.5, "best_image_uid": "tie"}
    rows[3] |= {"has_label": False, "label_0": None, "label_1": None}
    rows[5] |= {"jpg_1": rows[5]["jpg_1"][:60]}
    rows[8] |= {"jpg_1": rows[8]["jpg_0"]}
    return rows
