"""A second engine on a cluster without a second image: a third party's Python package, mounted from a ConfigMap.

It is the transformers engine under another name, which is enough for a swap: engines are compared by name.
"""

from __future__ import annotations

import copy
from typing import Any

NAME = "other"
FOLDER = "/plugins"
FILES = {
    "METADATA": "Metadata-Version: 2.1\nName: other-engine\nVersion: 1\n",
    "entry_points.txt": f"[accord.engines]\n{NAME} = accord_rollout.engines.transformers.engine:TransformersEngine\n",
}


def objects_for(transformers: dict[str, Any]) -> list[dict[str, Any]]:
    """The package, and the engine's template, from that of `transformers`."""
    template = copy.deepcopy(transformers)
    template["metadata"]["name"] = f"rollout-{NAME}"
    spec = template["spec"]
    for labels in (
        template["metadata"]["labels"],
        spec["selector"]["matchLabels"],
        spec["template"]["metadata"]["labels"],
    ):
        labels["accord.dev/engine"] = NAME
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    for entry in container["env"]:
        if entry["name"] == "ACCORD_ROLLOUT_ENGINE":
            entry["value"] = NAME
    container["env"].append({"name": "PYTHONPATH", "value": FOLDER})
    container["volumeMounts"].append({"name": "plugin", "mountPath": FOLDER})
    items = [{"key": key, "path": f"other_engine-1.dist-info/{key}"} for key in FILES]
    pod["volumes"].append({"name": "plugin", "configMap": {"name": "other-engine", "items": items}})
    meta = {"name": "other-engine", "namespace": template["metadata"]["namespace"]}
    return [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": FILES}, template]
