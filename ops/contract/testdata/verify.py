# A judge with the command line of the organisation's template, which finds a fault in the second video.
import json
import os
import sys

options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
results = []
for n, video in enumerate(sorted(os.listdir(options["--videos-dir"]))):
    folder = os.path.join(options["--gt-dir"], os.path.splitext(video)[0])
    good = n != 1
    results.append({"gt_dir": folder, "score": 1.0 if good else 0.65, "faults": [] if good else ["frame 7: it jumps"]})
with open(options["--output"], "w") as f:
    json.dump(results, f)
