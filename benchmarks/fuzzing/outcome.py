"""What `benchmarks.fuzz` and its worker exchange."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """How a case ended.

    Attributes:
        seed: The case's.
        format: Row of the table.
        reader: A name of `benchmarks.fuzzing.readers.READERS`.
        steps: The mutated file and the mutators.
        kind: "read", "refused", the exception's type, "time-out", "memory", "crash by SIGSEGV", "outside of its
            folder" and so on; empty while the case runs.
        frame: Innermost line of the project.
        text: Message.
    """

    seed: int
    format: str
    reader: str = ""
    steps: str = ""
    kind: str = ""
    frame: str = ""
    text: str = ""

    @property
    def is_finding(self) -> bool:
        """Whether the reader neither read the file nor refused it with a message."""
        return self.kind not in ("read", "refused")
