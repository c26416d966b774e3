"""Reads the recorder's files with pandas and with DuckDB, as they are, and says what is in them, as JSON.

readers.py FOLDER FILE...: all Parquet files below FOLDER as one table, and each FILE by itself.
"""

import json
import sys
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow.parquet as pq


def by_pandas(files):
    # Page checksums are looked at by pyarrow only when it is asked to.
    frame = pd.concat([pq.read_table(file, page_checksum_verification=True).to_pandas() for file in files])
    plain = pd.concat([pd.read_parquet(file) for file in files])
    assert frame.equals(plain)
    samples = frame[frame["kind"] == "sample"]
    groups = samples.groupby(["subject_kind", "subject_id", "name", "unit", "attributes", "origin"])["value"]
    first = samples.groupby("name")["timestamp"].min()
    return {
        "rows": len(frame),
        "samples": len(samples),
        "events": len(frame[frame["kind"] == "event"]),
        "events_without_value": int(frame[frame["kind"] == "event"]["value"].isna().sum()),
        "sums": {"|".join(key): [int(group.count()), float(group.sum())] for key, group in groups},
        "first_ms": {name: int(at.timestamp() * 1000) for name, at in first.items()},
        "types": {name: str(kind) for name, kind in frame.dtypes.items()},
    }


def by_duckdb(files):
    recorded = duckdb.read_parquet([str(file) for file in files])

    def count(where):
        return duckdb.sql(f"select count(*) from rows_ where {where}").fetchall()[0][0]

    duckdb.sql("create or replace temp table rows_ as select * from recorded")
    sums = duckdb.sql(
        """select subject_kind, subject_id, name, unit, attributes, origin, count(*), sum(value)
           from rows_ where kind = 'sample' group by all"""
    ).fetchall()
    first = duckdb.sql(
        "select name, epoch_ms(min(timestamp)) from rows_ where kind = 'sample' group by name"
    ).fetchall()
    return {
        "rows": count("true"),
        "samples": count("kind = 'sample'"),
        "events": count("kind = 'event'"),
        "events_without_value": count("kind = 'event' and value is null"),
        "sums": {"|".join(row[:6]): [row[6], row[7]] for row in sums},
        "first_ms": dict(first),
        "types": {name: str(kind) for name, kind in zip(recorded.columns, recorded.types)},
    }


def main():
    folder, files = Path(sys.argv[1]), sys.argv[2:]
    sets = {"folder": sorted(folder.rglob("*.parquet"))} | {Path(file).name: [Path(file)] for file in files}
    print(json.dumps({name: {"pandas": by_pandas(of), "duckdb": by_duckdb(of)} for name, of in sets.items()}))


main()
