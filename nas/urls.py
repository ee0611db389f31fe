"""Addresses of databases and of places for files, as they may be shown: without passwords and other secrets."""

import re
from urllib.parse import unquote

_SECRET_KEY = re.compile(r"pass|pwd|secret|token|key|sig|credential", re.IGNORECASE)
STARS = "***"


def shown(url: str) -> str:
    """The URL without its password, and without what a query says of passwords, keys or tokens; it need not be a proper one."""
    scheme, user, _, rest = _parts(url)
    address, mark, query = rest.partition("?")
    kept = [part for part in query.split("&") if not _SECRET_KEY.search(part.partition("=")[0])]
    return scheme + (f"{user}@" if user else "") + address + (mark + "&".join(kept) if any(kept) else "")


def without_secrets(text: str, url: str) -> str:
    """The text with stars wherever a secret of the URL stands."""
    _, _, password, rest = _parts(url)
    query = (part.partition("=") for part in rest.partition("?")[2].split("&"))
    secrets = [password, *(value for key, _, value in query if _SECRET_KEY.search(key))]
    for secret in sorted({*secrets, *map(unquote, secrets)}, key=len, reverse=True):
        if secret:
            text = text.replace(secret, STARS)
    return text


def _parts(url: str) -> tuple[str, str, str, str]:
    """Scheme with ``://``, user, password, and what comes after ``@``."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        return "", "", "", url
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user, colon, password = authority.partition(":")
    if "@" in authority:
        owner, _, host = authority.rpartition("@")
        user, _, password = owner.partition(":")
        return scheme + mark, user, password, host + rest[len(authority) :]
    if colon and password and not password.isdecimal() and not authority.startswith("["):  # no port: a password …
        if "@" in rest:  # … in which something should have been written as %2F
            owner, _, host = rest.rpartition("@")
            user, _, password = owner.partition(":")
            return scheme + mark, user, password, host
        return scheme + mark, "", password, user + rest[len(authority) :]  # … without a host
    return scheme + mark, "", "", rest
