"""Cut a saved recording down to what its timeline needs: `python make_fixture.py build/drill/latest NAME`.

Observations stay whole. Of the samples stay the failed ones and each answering pod's first few, on new connections
through the Service: from these `serving` follows as it does from all.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any


def cut(data: dict[str, Any]) -> dict[str, Any]:
    """The smaller recording."""
    clients = {f"{vantage}/new" for vantage in data["scene"]["service_vantages"]}
    fault = data["scene"]["fault"]
    kept: Counter[tuple[str, str, str]] = Counter()
    samples = []
    for sample in data["samples"]:
        if sample["client"] not in clients or sample["at"] + sample["seconds"] < fault:
            continue
        key = (sample["app"], sample["client"], sample.get("pod", ""))
        kept[key] += 1
        spread = next(a["behaviour"].startswith("spread") for a in data["apps"] if a["name"] == sample["app"])
        if ("error" in sample and spread) or ("error" not in sample and kept[key] <= 3):
            samples.append(sample)
    watched = {a["service"] for a in data["apps"]} - {None}
    observations = [o for o in data["observations"] if o["kind"] != "slice" or o["facts"]["service"] in watched]
    return {**data, "samples": samples, "observations": observations, "warnings": []}


if __name__ == "__main__":
    made = cut(json.loads((Path(sys.argv[1]) / "recording.json").read_text()))
    (Path(__file__).parent / "fixtures" / f"{sys.argv[2]}.json").write_text(
        json.dumps(made, separators=(",", ":")) + "\n"
    )
