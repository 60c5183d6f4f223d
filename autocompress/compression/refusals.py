"""What cannot take a setting, and why: nothing is left out silently."""

from __future__ import annotations

from dataclasses import dataclass

from autocompress.graph.model_graph import Layer

#: The name under which a refusal is listed that holds for the whole model.
EVERY_LAYER = "(every layer)"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A layer or channel group that a technique, or one setting of it, is not offered for.

    Attributes:
        name: of the layer or channel group, or :data:`EVERY_LAYER`.
        technique: its name; "any" for what no technique can change.
        reason: in words.
        setting: such as "w3a8"; "any" for all settings of the technique.
    """

    name: str
    technique: str
    reason: str
    setting: str = "any"

    def to_json(self) -> dict[str, str]:
        """Plain JSON values."""
        return {
            "name": self.name,
            "technique": self.technique,
            "setting": self.setting,
            "reason": self.reason,
        }


def called_again(layer: Layer) -> str:
    """The reason of a layer that is called more than once."""
    return f"called {layer.calls} times with shared weights"
