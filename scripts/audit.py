"""Audit of the locked dependencies for known vulnerabilities: pip-audit, where its index can be reached.

Exits with 1 when one has, and with 0 and a message where nobody can be asked.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOCKED = ("requirements/torch.txt", "requirements/runtime.txt", "requirements/dev.txt")


def audited(requirements: Path) -> list[dict[str, Any]]:
    """The report of pip-audit on each package; those it could not ask about have no "vulns"."""
    options = ["--no-deps", "--disable-pip", "--progress-spinner=off", "--format=json"]
    command = [sys.executable, "-m", "pip_audit", *options, "--requirement", str(requirements)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        packages: list[dict[str, Any]] = json.loads(finished.stdout)["dependencies"]
    except ValueError:
        print(f"{requirements.name} could not be audited: {finished.stderr.strip()[-300:]}")
        return []
    return packages


def main() -> int:
    packages = [package for name in LOCKED for package in audited(ROOT / name)]
    known = [package for package in packages if "vulns" in package]
    if not known:
        print("audit skipped: the index in reach knows no vulnerabilities")
        return 0
    vulnerable = [package for package in known if package["vulns"]]
    for package in vulnerable:
        for one in package["vulns"]:
            fixed = ", ".join(one["fix_versions"]) or "no release yet"
            print(f"{package['name']} {package['version']}: {one['id']}, fixed in {fixed}")
    print(f"{len(known)} of {len(packages)} packages audited, {len(vulnerable)} with known vulnerabilities")
    return 1 if vulnerable else 0


if __name__ == "__main__":
    sys.exit(main())
