"""Build hook: the shipped data travels inside the wheel.

`force-include` in pyproject.toml would copy it into the environment of an editable install as well, which reads `data/`
of the checkout.
"""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SHIPPED = ("pocket", "classifiers", "prompts", "starter-pairs.zip")


class ShippedData(BuildHookInterface[Any]):
    """Adds `data/` to the package as its folder `assets`, where `dmpo_app.settings.host` finds it."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "standard":
            build_data["force_include"] |= {f"data/{name}": f"dmpo_app/assets/{name}" for name in SHIPPED}
