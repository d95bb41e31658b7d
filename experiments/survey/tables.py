"""The survey's results as Markdown, by the names of their places in the page."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiments.survey.row import OUTCOMES, SurveyRow
from experiments.tables import table


def tables(rows: Sequence[SurveyRow], made_with: Mapping[str, Any]) -> dict[str, str]:
    """Return what stands between the page's comments, by name."""
    return {
        "summary": summary(rows),
        "outcomes": outcomes_table(rows),
        "options": options_table(rows),
        "exceptions": exceptions_table(rows),
        "not run": not_run_table(rows),
        "made with": software(rows, made_with),
    }


def summary(rows: Sequence[SurveyRow]) -> str:
    """Return the figures in words."""
    pool = [row for row in rows if row.pools]
    outcomes = Counter(row.outcome for row in pool)
    wholly = [row for row in pool if row.outcome == "wholly"]
    if not wholly:
        return "No network has had its poolings replaced wholly yet."
    plain = sum(not row.options for row in wholly)
    windows = [row for row in pool if row.pools_windows]
    of_windows = sum(row.replaces_windows for row in windows)
    trained = [row for row in rows if row.trained]
    heads = sum(row.heads for row in trained)
    untouched = sum(row.outcome == "partly" and not row.replaced for row in pool)
    seconds = sorted(row.seconds for row in wholly)
    return (
        f"Of {sum(row.outcome != 'does not run' for row in rows)} networks that run, {len(pool)} "
        f"pool a part of their map. In {len(wholly)} of these ({len(wholly) / len(pool):.1%}) "
        f"every such pooling is replaced: in {plain} without options, in {len(wholly) - plain} "
        f"with options. In {outcomes['partly']} some stay, in {untouched} of them all, and what "
        f"stays is listed with the reason (max and average pooling, adaptive ones left out, is "
        f"replaced wholly in {of_windows} of {len(windows)}, {of_windows / len(windows):.1%}); "
        f"{outcomes['refused']} are refused; in {outcomes['silent']} a pooling stays "
        f"that is not listed; {outcomes['broken']} are broken. {len(trained)} ran forward and "
        f"backward in training mode, and each of their {heads} heads got a "
        f"gradient. `replace_pooling` took {seconds[len(seconds) // 2]:.2f} s of one processor in "
        f"the median, {seconds[-1]:.1f} s at most."
    )


def outcomes_table(rows: Sequence[SurveyRow]) -> str:
    """Return the number of networks of each outcome, by group."""
    columns = (
        *("group", "tried", "do not run", "do not pool", "wholly, no options", "wholly, options"),
        *("partly, listed", "refused", "silent", "broken"),
    )
    groups: dict[str, list[SurveyRow]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    lines = [(group, *_counts(found)) for group, found in sorted(groups.items(), key=_by_name)]
    return table(columns, [*lines, ("all", *_counts(rows))])


def _by_name(item: tuple[str, object]) -> str:
    return item[0].lower()


def _counts(rows: Sequence[SurveyRow]) -> list[str]:
    outcomes = Counter(row.outcome for row in rows)
    plain = sum(row.outcome == "wholly" and not row.options for row in rows)
    numbers = (
        *(len(rows), outcomes["does not run"], outcomes["does not pool"], plain),
        *(outcomes["wholly"] - plain, *(outcomes[each] for each in OUTCOMES[1:5])),
    )
    return [str(number) for number in numbers]


def options_table(rows: Iterable[SurveyRow]) -> str:
    """Return what each set of options replaces in the networks that are replaced wholly."""
    found: dict[str, list[SurveyRow]] = {}
    for row in rows:
        if row.outcome == "wholly":
            found.setdefault(row.options, []).append(row)
    return table(
        ("options", "networks", "poolings", "of which without options"),
        [
            (
                f"`{options}`" if options else "none",
                str(len(having)),
                str(sum(row.replaced for row in having)),
                str(sum(row.default_replaced for row in having)),
            )
            for options, having in sorted(found.items())
        ],
    )


def exceptions_table(rows: Iterable[SurveyRow]) -> str:
    """Return the networks that pool and are not replaced wholly."""
    return table(
        ("network", "outcome", "replaced", "options", "what stays, and why"),
        [
            (
                f"`{row.network}`",
                row.outcome,
                f"{row.replaced} of {row.partial}",
                f"`{row.options}`" if row.options else "none",
                _cell(row.silent or _what_stays(row.left) or row.error),
            )
            for row in rows
            if row.pools and row.outcome != "wholly"
        ],
    )


def not_run_table(rows: Iterable[SurveyRow]) -> str:
    """Return the networks that could not be tried."""
    return table(
        ("network", "why"),
        [(f"`{row.network}`", _cell(row.error)) for row in rows if row.outcome == "does not run"],
    )


def software(rows: Iterable[SurveyRow], made_with: Mapping[str, Any]) -> str:
    """Return the machine and the versions."""
    versions = ", ".join(f"{name} {version}" for name, version in made_with["versions"].items())
    commits = sorted({row.commit[:10] for row in rows})
    return (
        f"{made_with['device']}, Python {made_with['python']}, {versions}; poolings by the "
        f"{made_with['backend']} backend; {made_with['date']}, commit {', '.join(commits)}."
    )


def _what_stays(left: str) -> str:
    """Return how many of each function stay and why: ``left`` has each with its path and window."""
    places = re.findall(r"\S+ (\w+)\([^;]*?\): ([^;]*)", left)
    return "; ".join(
        f"{count} of {function}: {why}" for (function, why), count in Counter(places).items()
    )


def _cell(text: str, most: int = 240) -> str:
    """``text`` in a table's cell, where it is code, shortened."""
    text = text.replace("|", "\\|").replace("`", "'")
    return text if len(text) <= most else f"{text[:most].rstrip()} …"
