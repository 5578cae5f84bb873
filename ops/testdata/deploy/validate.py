"""validate.py MANIFESTS CRDS: checks Kubernetes objects against Kubernetes' own schemas,
and KEDA's against the definitions in the folder CRDS. Prints each object that is right."""

import sys
from pathlib import Path

import jsonschema
import kubernetes_validate
import yaml


def strict(schema):
    """Unknown fields are errors, as for kubectl."""
    for child in schema.get("properties", {}).values():
        strict(child)
    if isinstance(schema.get("items"), dict):
        strict(schema["items"])
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema.setdefault("additionalProperties", False)
    return schema


definitions = {}
for path in Path(sys.argv[2]).glob("*.yaml"):
    crd = yaml.safe_load(path.read_text())
    for version in crd["spec"]["versions"]:
        schema = strict(version["schema"]["openAPIV3Schema"])
        schema["properties"]["metadata"] = {"type": "object"}
        definitions[f"{crd['spec']['group']}/{version['name']}", crd["spec"]["names"]["kind"]] = schema

for object in yaml.safe_load_all(Path(sys.argv[1]).read_text()):
    kind = object["apiVersion"], object["kind"]
    if kind in definitions:
        jsonschema.validate(object, definitions[kind])
    else:
        kubernetes_validate.validate(object, "1.33", strict=True)
    print(*kind, object["metadata"]["name"])
