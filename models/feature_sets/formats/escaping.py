"""Keys and names as parts of names that formats take apart."""

import re
import urllib.parse

# What a name in a zip, a tar or a store can't hold, and what tells an escape.
_ALWAYS = r"%\x00-\x1f\x7f\ud800-\udfff"


def escaped(text: str, others: str) -> str:
    """A text with some characters as the hexadecimal of their bytes: `%2E` for a dot.

    Parameters
    ----------
    others
        what is escaped besides control characters and lone surrogates
    """
    return re.sub(f"[{_ALWAYS}{re.escape(others)}]", lambda found: _hexadecimal(found[0]), text)


def unescaped(text: str) -> str:
    """The text that was escaped."""
    return urllib.parse.unquote(text, errors="surrogatepass")


def _hexadecimal(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))


def dotted(name: str) -> str:
    """The name of an array where slashes are none of names: `log_mel.vocals`."""
    return escaped(name, ".").replace("/", ".")


def in_utf8(text: str) -> str:
    """A text with lone surrogates, of names that are no UTF-8, as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()
