"""Tables in Parquet files, written with the same bytes for the same table, and read within bounds.

A Parquet file can be a thousand times larger in memory than on the disk. Files may come from other people, so what is
read must have the expected columns, and may need at most `TIMES_LARGER` times the file's bytes.
"""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from rnnstudy.store.errors import DamagedFile
from rnnstudy.store.foreign import LARGEST_TABLE, regular_file

TIMES_LARGER, FREE_BYTES = 64, 2**26
"""A table of descriptions that repeat each other is 13 times larger in memory; small files may have `FREE_BYTES`."""

ROWS_AT_ONCE = 64


def parquet(table: pa.Table) -> bytes:
    """A table as a Parquet file."""
    buffer = BytesIO()
    pq.write_table(table, buffer, compression="zstd", compression_level=9)
    return buffer.getvalue()


def read_parquet(folder: Path, name: str, expected: Callable[[pa.Schema], bool]) -> pd.DataFrame:
    """The table in the file `name` of a folder, if its schema is `expected`.

    Raises `FileNotFoundError` where there is no such file, and `DamagedFile` when it cannot be read.
    """
    path = regular_file(folder, name, LARGEST_TABLE)
    most = FREE_BYTES + TIMES_LARGER * path.stat().st_size
    try:
        with pq.ParquetFile(path) as file:
            if not expected(file.schema_arrow.remove_metadata()):
                raise DamagedFile(f"{path} has other columns than such a table; restore it, or export it again")
            groups = [file.metadata.row_group(group) for group in range(file.metadata.num_row_groups)]
            columns = [group.column(column) for group in groups for column in range(group.num_columns)]
            parts, size = [], sum(max(column.total_uncompressed_size, 4 * column.num_values) for column in columns)
            for part in file.iter_batches(batch_size=ROWS_AT_ONCE) if size <= most else ():
                size = max(size, sum(one.nbytes for one in (*parts, part)))
                if size > most:
                    break
                parts.append(part)
            if size > most:
                raise DamagedFile(f"{path} would need {size} bytes of memory; a table of its size needs at most {most}")
            return pa.Table.from_batches(parts, file.schema_arrow).replace_schema_metadata(None).to_pandas()
    except (pa.ArrowException, ValueError, OSError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise DamagedFile(f"{path} cannot be read ({reason}); restore it, or export it again") from None
