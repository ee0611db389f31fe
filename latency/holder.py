"""Runs on the device: holds its lock for as long as the other side gives signs of life, so several machines take turns.

Started as ``python3 -c … FILE WHO`` it waits for a lock of the device's kernel on FILE, which also names the holder, and prints
``waiting NAME`` at most once and then ``held``. It ends, and with it the lock, when its input ends or is silent for `SILENCE_S`.
"""

import fcntl
import os
import select
import sys
import time

SILENCE_S = 30.0
POLL_S = 0.2


def open_lock(path: str) -> int:
    """The lock's file, made for all users of the device if it is not there yet; raises OSError where it cannot be.

    Where everybody may make files (``/tmp``), a link that somebody left in its place is not followed. A file of another user that
    may only be read locks as well.
    """
    problem = OSError()
    for flags in (os.O_RDWR, os.O_RDWR | os.O_CREAT | os.O_EXCL, os.O_RDWR, os.O_RDONLY):
        try:
            file = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        except (FileNotFoundError, FileExistsError, PermissionError) as error:
            problem = error
            continue
        if flags & os.O_CREAT:
            os.fchmod(file, 0o666)
        return file
    raise problem


def say(line: str) -> None:
    """Prints a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def alive(wait_s: float) -> bool:
    """Whether the other side is there; waits so long for its next sign."""
    if not select.select([0], [], [], wait_s)[0]:
        return True
    return bool(os.read(0, 4096))


def main(path: str, who: str) -> None:
    """Takes the lock, says so, and holds it."""
    try:
        file = open_lock(path)
    except OSError as error:
        raise SystemExit(f"the lock {path} cannot be opened ({error.strerror})") from error
    told = False
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if not told:
                name = " ".join(os.pread(file, 200, 0).decode(errors="replace").split())
                say("waiting " + (name or "another machine"))
                told = True
        if not alive(POLL_S):
            return
    try:
        os.ftruncate(file, 0)
        os.pwrite(file, who.encode()[:200], 0)
    except OSError:  # another user's file: it cannot name us, but it locks
        pass
    say("held")
    last = time.monotonic()
    while time.monotonic() - last < SILENCE_S:
        if select.select([0], [], [], 1.0)[0]:
            if not os.read(0, 4096):
                return
            last = time.monotonic()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
