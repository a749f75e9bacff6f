"""What managers and metadata show of themselves: text for a terminal, HTML for a notebook."""

from __future__ import annotations

import datetime
import html
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

# A notebook shows so many steps, and so many leaves of a tree; the rest is counted.
STEPS_MAX = 50
_LEAVES_MAX = 500
_TEXT_STEPS_MAX = 6


class StepRow(NamedTuple):
    """What is shown of a step."""

    name: str
    committed_ns: int
    size_bytes: int
    metrics: Mapping[str, Any] | None


def size_text(size_bytes: int) -> str:
    """A size in bytes for people.

    >>> size_text(48), size_text(1_490_000_000)
    ('48 B', '1.49 GB')
    """
    if size_bytes < 1000:
        return f"{size_bytes} B"
    size = float(size_bytes)
    for unit in ("kB", "MB", "GB", "TB"):
        size /= 1000
        if size < 999.5 or unit == "TB":
            break
    return f"{size:.3g} {unit}"


def disk_usage(directory: str) -> int:
    """The bytes that a directory's files take on disk; those that go meanwhile do not count."""
    total = 0
    for path, _, names in os.walk(directory):
        for name in names:
            try:
                status = os.lstat(os.path.join(path, name))
            except OSError:
                continue
            # What is set aside for a file to grow into does not count, nor do holes.
            total += min(status.st_size, status.st_blocks * 512)
    return total


def steps_text(names: Sequence[str]) -> str:
    """Names of steps in one line.

    >>> steps_text([str(step) for step in range(100)])
    '100 steps: 0, 1, 2, ..., 97, 98, 99'
    """
    if not names:
        return "no steps"
    shown = list(names)
    if len(shown) > _TEXT_STEPS_MAX:
        half = _TEXT_STEPS_MAX // 2
        shown = [*shown[:half], "...", *shown[-half:]]
    count = "1 step" if len(names) == 1 else f"{len(names)} steps"
    return f"{count}: {', '.join(shown)}"


def manager_text(directory: str, names: Sequence[str], remarks: Sequence[str]) -> str:
    """One line about a manager."""
    size = size_text(disk_usage(directory))
    parts = [repr(directory), steps_text(names), f"{size} on disk", *remarks]
    return f"<CheckpointManager {'; '.join(parts)}>"


def manager_html(
    directory: str,
    step_count: int,
    rows: Sequence[StepRow],
    remarks: Sequence[str],
    items: Mapping[str, Any],
) -> str:
    """A table of the newest of `step_count` steps, and trees of the newest's leaves."""
    title = f"<b>CheckpointManager</b> <code>{html.escape(directory)}</code>"
    size = size_text(disk_usage(directory))
    facts = ["1 step" if step_count == 1 else f"{step_count} steps", f"{size} on disk", *remarks]
    parts = [f"<div>{title}: {html.escape('; '.join(facts))}</div>"]
    if rows:
        parts.append(_step_table(step_count - len(rows), rows))
    for name, metadata in items.items():
        summary = f"<code>{html.escape(name)}</code> of the newest step"
        parts.append(f"<details><summary>{summary}</summary>{_item_html(metadata)}</details>")
    return "".join(parts)


def _step_table(hidden: int, rows: Sequence[StepRow]) -> str:
    metrics = sorted({name for row in rows for name in row.metrics or {}})
    heads = ["step", "committed", "size", *metrics]
    lines = ["<tr>" + "".join(f"<th>{html.escape(head)}</th>" for head in heads) + "</tr>"]
    if hidden > 0:
        lines.append(f"<tr><td colspan={len(heads)}>{hidden} earlier steps</td></tr>")
    for row in rows:
        moment = datetime.datetime.fromtimestamp(row.committed_ns / 1e9)
        values = [_number_text((row.metrics or {}).get(name)) for name in metrics]
        cells = [row.name, f"{moment:%Y-%m-%d %H:%M:%S}", size_text(row.size_bytes), *values]
        lines.append("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>")
    return f"<table>{''.join(lines)}</table>"


def _number_text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _item_html(metadata: Any) -> str:
    tree = getattr(metadata, "tree", None)
    return f"<pre>{html.escape('nothing is known of its leaves')}</pre>" if tree is None else (
        _nested_html(tree)
    )


# A tree of leaves' metadata.


def _children(value: Any) -> list[tuple[str, Any]] | None:
    """What stands below a node, with the labels; None: it is a leaf."""
    from stepstone._containers import describe

    container = describe(value)
    if container is None:
        return None
    return list(zip(map(str, container.labels), container.children))


def leaf_text(leaf: Any) -> str:
    """What is said of a leaf: its dtype, shape and size."""
    name = type(leaf).__name__
    if name == "ScalarMetadata":
        return "int" if leaf.dtype is None else leaf.dtype.name.rstrip("0123456789").replace(
            "object", "int"
        )
    if name == "ArrayMetadata":
        shape = ",".join(str(extent) for extent in leaf.shape)
        size_bytes = leaf.dtype.itemsize
        for extent in leaf.shape:
            size_bytes *= extent
        return f"{leaf.dtype.name}[{shape}]  {size_text(size_bytes)}"
    if name in ("StringMetadata", "BytesMetadata"):
        return {"StringMetadata": "str", "BytesMetadata": "bytes"}[name]
    return str(leaf)


def _lines(value: Any, indent: str) -> Iterator[str]:
    children = _children(value) or []
    for number, (label, child) in enumerate(children):
        is_last = number + 1 == len(children)
        below = _children(child)
        text = "" if below else f"  {leaf_text(child)}" if below is None else "  (empty)"
        yield f"{indent}{'└── ' if is_last else '├── '}{label}{text}"
        yield from _lines(child, indent + ("    " if is_last else "│   "))


def _cut(lines: Iterable[str]) -> list[str]:
    shown: list[str] = []
    for line in lines:
        if len(shown) == _LEAVES_MAX:
            return [*shown, "..."]
        shown.append(line)
    return shown


def tree_text(title: str, tree: Any) -> str:
    """A tree with one line for each node."""
    if _children(tree) is None:
        return f"{title}  {leaf_text(tree)}"
    return "\n".join([title, *_cut(_lines(tree, ""))])


def tree_html(title: str, tree: Any) -> str:
    """The same with branches that can be opened."""
    return f"<b>{html.escape(title)}</b>{_nested_html(tree)}"


def _nested_html(tree: Any) -> str:
    if _children(tree) is None:
        return f"<code>{html.escape(leaf_text(tree))}</code>"
    return f"<ul>{''.join(_cut(_branches(tree)))}</ul>"


def _branches(value: Any) -> Iterator[str]:
    for label, child in _children(value) or []:
        below = _children(child)
        name = f"<code>{html.escape(label)}</code>"
        if below:
            inner = "".join(_cut(_branches(child)))
            yield f"<li><details open><summary>{name}</summary><ul>{inner}</ul></details></li>"
        else:
            text = "(empty)" if below is not None else leaf_text(child)
            yield f"<li>{name} {html.escape(text)}</li>"
