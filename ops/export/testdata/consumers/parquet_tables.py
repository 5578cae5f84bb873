"""DuckDB, pyarrow and pandas: count = distinct = N, the sum of bytes is the receipts', no fingerprint is in two splits."""
from truth import equal, export, file_bytes, of, said, same_row, samples, splits

import duckdb
import pandas
import pyarrow.parquet as pq

files = sorted(export.glob("data/*/*.parquet"))
glob = f"{export}/data/*/*.parquet"
puzzles = {s["fingerprint"] for s in samples.values()}
equal(len(puzzles) < len(samples), True, "that some samples are the same puzzle")
count, distinct, prints = duckdb.sql(f"select count(*), count(distinct key), count(distinct fingerprint) from '{glob}'").fetchall()[0]
equal((count, distinct, prints), (len(samples), len(samples), len(puzzles)), "count, distinct keys and fingerprints")
blobs = " + ".join(
    [f"coalesce(sum(octet_length({c}.bytes)), 0)" for c in ("first_frame", "final_frame", "ground_truth", "first_video")]
    + ["sum(coalesce(list_sum(list_transform(other_files, lambda f: octet_length(f.bytes))), 0))"]
    + [f"sum(octet_length(encode({c})))" for c in ("prompt", "rubric", "metadata")]
)
equal(int(duckdb.sql(f"select {blobs} from '{glob}'").fetchall()[0][0]), file_bytes, "the sum of all bytes")
total = duckdb.sql(f"select sum(list_sum(list_transform(files, lambda f: f.size))) from '{glob}'").fetchall()[0][0]
equal(int(total), file_bytes, "the sum of the sizes")

keys, by_split = [], {}
for file in files:
    table = pq.read_table(file, columns=["key", "split", "fingerprint", "first_frame", "ground_truth"])
    keys += table["key"].to_pylist()
    for split, fingerprint in zip(table["split"].to_pylist(), table["fingerprint"].to_pylist()):
        by_split.setdefault(split, set()).add(fingerprint)
    groups = pq.ParquetFile(file).metadata
    for i in range(groups.num_row_groups):
        if groups.row_group(i).total_byte_size > 100 << 20:
            raise SystemExit(f"row group {i} of {file} has {groups.row_group(i).total_byte_size} bytes")
equal(sorted(keys), sorted(samples), "the keys")
equal(by_split, {s: {samples[k]["fingerprint"] for k in of(split=s)} for s in splits}, "the fingerprints of the splits")
equal(sum(map(len, by_split.values())), len(puzzles), "the fingerprints that two splits share")

frame = pandas.concat(pandas.read_parquet(f) for f in files)
equal(sorted(frame["key"]), sorted(samples), "the keys in pandas")
for _, row in frame.iterrows():
    same_row(row, row["key"])
    equal(len(row["first_frame"]["bytes"]), samples[row["key"]]["files"]["first_frame.png"]["size"], "a picture in pandas")
said("parquet, DuckDB, pyarrow and pandas", count, f", {file_bytes} bytes, no fingerprint in two splits")
