"""Where a target's device is, by the kind of the device; what a target file says under ``device``."""

from dataclasses import dataclass

PIXEL_MODEL = "Pixel"  # how the model of every Pixel phone begins


@dataclass(frozen=True, kw_only=True)
class SshAddress:
    """A board that the ``ssh`` command reaches; whatever is left out follows from the user's ssh configuration.

    Attributes:
        address: host name, IP address, or a ``Host`` of the ssh configuration.
        port: TCP port.
        user: login name there.
        key: path of the private key to use instead of those that ssh would try.
        config: path of an ssh configuration to use instead of the user's own.
        python: interpreter there, with numpy and onnxruntime.
        folder: folder there for the files of a job and for the lock.
    """

    address: str
    port: int | None = None
    user: str | None = None
    key: str | None = None
    config: str | None = None
    python: str = "python3"
    folder: str = "/tmp"


@dataclass(frozen=True, kw_only=True)
class AdbAddress:
    """A phone, or several alike, that the ``adb`` command reaches.

    Attributes:
        serial: serial numbers as ``adb devices`` lists them; none where the only one attached is meant.
        model: where no serial is given, how the model of an attached phone that is meant begins, as ``adb devices -l`` tells it.
        folder: folder there for the runtime, the files of a job, and the lock.
    """

    serial: tuple[str, ...] = ()
    model: str = ""
    folder: str = "/data/local/tmp/pocketnas"


Address = SshAddress | AdbAddress
