"""vbvr: every row of data/metadata.parquet opens through tarfile.extractfile, and says what the bucket says."""
import tarfile

from truth import equal, export, file_bytes, said, same_file, same_row, samples, video_columns, video_facts

import pyarrow.parquet as pq

published = ["id", "generator", "task", "sample_id", "prompt", "metadata_json", "first_frame_path", "final_frame_path",
             "ground_truth_video_path", "tar_file"]
table = pq.read_table(export / "data" / "metadata.parquet")
equal(table.column_names[: len(published)], published, "the published columns")
rows = table.to_pylist()
equal(sorted(r["key"] for r in rows), sorted(samples), "the samples")
equal([r["id"] for r in rows], list(range(len(rows))), "the ids")
opened, members, total = 0, set(), 0
archives = {}
for row in rows:
    want = samples[row["key"]]
    name = row["tar_file"]
    archive = archives.setdefault(name, tarfile.open(export / name))
    same_row(row, row["key"])
    for column, field in (("sample_id", "id"), ("prompt", "prompt"), ("metadata_json", "metadata")):
        equal(row[column], want[field], f"{column} of {row['key']}")
    facts = video_facts(archive.extractfile(row["ground_truth_video_path"]).read())
    equal(tuple(row[c] for c in video_columns), facts, f"the video of {row['key']}")
    for column in ("first_frame_path", "final_frame_path", "ground_truth_video_path"):
        path = row[column]
        if path is None:
            equal(column, "final_frame_path", f"what {row['key']} lacks")
            equal("final_frame.png" in want["files"], False, f"{row['key']} has no final frame")
            continue
        content = archive.extractfile(path).read()
        same_file(content, row["key"], path.rsplit("/", 1)[1])
        opened += 1
    # What else the sample has lies beside its first frame.
    folder = row["first_frame_path"].rsplit("/", 1)[0]
    for file in want["files"]:
        same_file(archive.extractfile(f"{folder}/{file}").read(), row["key"], file)
        members.add((name, f"{folder}/{file}"))
        total += want["files"][file]["size"]
equal({(n, m.name) for n, a in archives.items() for m in a.getmembers() if m.isfile()}, members, "the members")
equal(total, file_bytes, "the sum of all bytes")
said("vbvr", len(rows), f", {opened} files opened by their paths")
