"""Check the manifests of ``cluster/kuberay`` against the schema that the operator itself brings.

    python -m tests.cluster.published FOLDER

where the folder is a checkout of KubeRay. The tests have a schema of our own, of the fields that we
use; this one has all of them, and is run by hand when the operator's version changes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from tests.cluster.test_files import manifests

PLACE = "helm-chart/kuberay-operator/crds"


def schemas(checkout: Path) -> dict[str, dict[str, Any]]:
    """The schema of each kind of manifest, in which a field that it does not name is an error."""
    found = {}
    for file in sorted((checkout / PLACE).glob("*.yaml")):
        definition = yaml.safe_load(file.read_text())["spec"]
        for version in definition["versions"]:
            if version["name"] == "v1":
                schema = closed(version["schema"]["openAPIV3Schema"])
                found[definition["names"]["kind"]] = schema
    return found


def closed(schema: Any) -> Any:
    """A schema of Kubernetes, without its extensions and open to no other field."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    either = schema.get("x-kubernetes-int-or-string")
    made = {key: closed(part) for key, part in schema.items() if not (either and key == "type")}
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    return made


def main() -> None:
    """Print what each manifest has that its schema refuses; exit code 1 if there is something."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path)
    known, wrong = schemas(parser.parse_args().checkout), 0
    for manifest in manifests():
        kind = manifest["kind"]
        if kind not in known:
            print(f"{kind}: Kubernetes' own, and not checked here")
            continue
        schema = known[kind]
        schema["properties"]["metadata"] = {"type": "object"}  # Kubernetes' own
        faults = [*jsonschema.Draft202012Validator(schema).iter_errors(manifest)]
        wrong += len(faults)
        print(f"{kind}: {len(faults)} faults")
        for fault in faults:
            print(f"  {'.'.join(map(str, fault.path))}: {fault.message[:200]}")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
