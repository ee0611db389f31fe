"""What a phone did when it was cool, kept from one session to the next: one that is slowed down from the start cannot tell."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from latency.provenance import Provenance
from latency.settings import RuntimeSettings
from latency.store import models_folder
from searchspace.files import write_atomically


@dataclass(frozen=True)
class Cool:
    """A cool phone.

    Attributes:
        ms: milliseconds of the reference network.
        cap_khz: highest frequency that its core was ever allowed, in kHz; 0 where it does not tell.
    """

    ms: float
    cap_khz: int


def cool_path(serial: str, provenance: Provenance, settings: RuntimeSettings) -> Path:
    """The file of one phone as it is now: with another system, runtime or way of running it has another."""
    key = json.dumps([serial, provenance.key, provenance.system, settings.as_json()], sort_keys=True)
    return models_folder() / "cool" / f"{hashlib.sha256(key.encode()).hexdigest()[:12]}.json"


def read_cool(path: Path) -> Cool | None:
    """What `write_cool` wrote; None where there is nothing that can be read."""
    try:
        plain = json.loads(path.read_bytes())
        found = Cool(float(plain["ms"]), int(plain["cap_khz"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if found.ms > 0 else None


def write_cool(path: Path, cool: Cool) -> None:
    """Keeps it for the next session."""
    write_atomically(path, json.dumps(asdict(cool)).encode())
