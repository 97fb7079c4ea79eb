"""What a frame is called."""

from dataclasses import dataclass


@dataclass(frozen=True, order=True, slots=True)
class Frame:
    """One frame of a data set: the set's name, the scene's (a folder within the set) and the frame's id within it.

    As text `DATASET/SCENE/ID`, which is also what it is called in random draws and hashes.
    """

    dataset: str
    scene: str
    id: str

    def __str__(self) -> str:
        return f"{self.dataset}/{self.scene}/{self.id}"

    @property
    def in_dataset(self) -> str:
        """`SCENE/ID`: what it is called where the data set is known."""
        return f"{self.scene}/{self.id}"

    @classmethod
    def parse(cls, text: str) -> "Frame":
        """From `DATASET/SCENE/ID`. ValueError: it is not of this form."""
        parts = text.split("/")
        if len(parts) != 3 or not all(parts):
            raise ValueError(f"{text!r} is not DATASET/SCENE/ID")
        return cls(*parts)
