"""SHA-256 of a folder's files, written into it: what was damaged since is known.

The file is in the format of `sha256sum`, so that `sha256sum --check SHA256SUMS` checks it by hand.
"""

import hashlib

from etils import epath

FILE = "SHA256SUMS"
_WIDTH = 64 + len("  ")  # of a line before its name


def write(folder: epath.Path) -> None:
    """Writes the sums of all files in and below `folder` into it, as its last file."""
    files = [where / name for where, _, names in folder.walk() for name in names]
    names = sorted(file.relative_to(folder).as_posix() for file in files)
    lines = [_line(folder, name) for name in names]
    (folder / FILE).write_bytes(b"\n".join([*lines, _end(lines), b""]))


def damage(folder: epath.Path) -> str:
    """What of `folder` is not as it was written, in words; '' if all is. Other files do not count.

    Raises nothing: a folder that cannot be read is damaged.
    """
    name = FILE
    try:
        *lines, end, rest = (folder / FILE).read_bytes().split(b"\n")
        if (end, rest) != (_end(lines), b""):
            return f"{FILE} is not whole"
        for line in lines:
            name = line[_WIDTH:].decode()
            if line != _line(folder, name):
                return f"{name} does not match {FILE}"
    except FileNotFoundError:
        return f"{name} is missing"
    except (OSError, ValueError):
        return f"{name} cannot be read"
    return ""


def _end(lines: list[bytes]) -> bytes:
    """A comment to `sha256sum`: with it, no line can go missing."""
    return f"# {len(lines)} files".encode()


def _line(folder: epath.Path, name: str) -> bytes:
    with (folder / name).open("rb") as file:
        content = hashlib.sha256()
        while part := file.read(2**20):
            content.update(part)
    return f"{content.hexdigest()}  {name}".encode()
