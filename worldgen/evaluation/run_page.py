"""One HTML page for a training run: results, curves, fidelity, films and settings.

Functions:
    run_page: the page as text, its films inside.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from worldgen.evaluation.page_parts import data_url, line_chart, page, table

__all__ = ["run_page"]

_FILMS = {
    "agent": "An episode of the agent's",
    "random": "An episode of the random policy's",
    "held_out": "An episode of the dataset's that nothing was learnt from",
}


def run_page(
    report: Mapping[str, Any],
    curve: Sequence[Mapping[str, Any]],
    *,
    results: Sequence[tuple[str, str]],
    films: Mapping[str, bytes],
    record: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> str:
    """Write the page.

    Args:
        report: As in report.json; of an offline training, where it tells of a dataset.
        curve: As in curve.json.
        results: Label and value, the rows of the table.
        films: Name -> GIF.
        record: As in run.json.
        settings: As in config.json.
    """
    offline = "dataset" in report
    name = settings["dataset"] if offline else report["environment"]["id"]
    title = f"{name}{', offline' if offline else ''}, seed {report['seed']}"
    rounds = (
        "A point for each round: fit, dream."
        if offline
        else "A point for each round: collect, fit, dream. Success and return are those of "
        "held-out seeds in the real environment."
    )
    body = [
        *_facts(record),
        '<nav><a href="#results">results</a><a href="#training">training</a>'
        '<a href="#fidelity">fidelity</a><a href="#films">films</a>'
        '<a href="#settings">settings</a></nav>',
        '<h2 id="results">Results</h2>',
        table(results),
        '<h2 id="training">Training</h2>',
        f'<p class="quiet">{rounds}</p>',
        '<div class="charts">',
        *_training(report, curve, "round" if offline else "real_environment_steps"),
        '</div><h2 id="fidelity">How far the dream can be trusted</h2>',
        '<p class="quiet">Shares of open-loop dreams that were right in every step so far, by the '
        "number of environment steps since they left the real episode.</p>",
        '<div class="charts">',
        *_fidelity(report["fidelity"]),
        '</div><h2 id="films">Films</h2>',
        '<p class="quiet">Reality beside the dream, the same actions in both.</p>',
        *_films(films),
        '<h2 id="settings">Settings</h2>',
        f"<details><summary>config.json</summary><pre>{_pretty(settings)}</pre></details>",
        f"<details><summary>run.json</summary><pre>{_pretty(record)}</pre></details>",
    ]
    return page(title, body)


def _facts(record: Mapping[str, Any]) -> Iterator[str]:
    facts = {
        "worldgen": record["worldgen_version"],
        "commit": record.get("commit") or "unknown",
        "processor": record["hardware"]["processor"],
        "threads": record["hardware"]["threads"],
        "GPU": record["hardware"]["gpu"] or "none",
    }
    yield '<p class="quiet">'
    for name, value in facts.items():
        yield f"{name}: <b>{html.escape(str(value))}</b><br>"
    for start in record["starts"]:
        yield f"{html.escape(start['time'])}: <code>{html.escape(start['command'])}</code><br>"
    yield "</p>"


def _pretty(values: Mapping[str, Any]) -> str:
    return html.escape(json.dumps(values, indent=2))


def _points(curve: Sequence[Mapping[str, Any]], key: str, by: str) -> list[tuple[float, float]]:
    return [(float(e[by]), float(e[key])) for e in curve if e.get(key) is not None]


def _training(
    report: Mapping[str, Any], curve: Sequence[Mapping[str, Any]], by: str
) -> Iterator[str]:
    label = by.replace("_", " ")
    for title, key, share in (
        ("Success on held-out seeds", "success_rate", True),
        ("Mean return on held-out seeds", "mean_return", False),
    ):
        levels = {
            name: report[arm][key]
            for name, arm in (("random", "random"), ("PPO, as many real steps", "ppo"))
            if report.get(arm) and report[arm].get(key) is not None
        }
        points = {"agent": _points(curve, key, by)}
        if points["agent"]:
            yield line_chart(title, label, points, share=share, levels=levels)
    by_time = _points(curve, "mean_return", "training_seconds")
    yield line_chart("Mean return by the clock", "seconds of training", {"agent": by_time})
    dreams = {
        name: _points(curve, f"dream/ep_{key}_mean", by)
        for name, key in (("task", "rew"), ("bonus for novelty", "bonus"))
    }
    yield line_chart(
        "Return of dreams", label, {name: points for name, points in dreams.items() if points}
    )
    yield line_chart(
        "World model: loss of a token, in nats",
        label,
        {"token loss": _points(curve, "dynamics/token_loss", by)},
    )
    right = "unseen/right_after_"
    foreseen = {
        f"after {name.removeprefix(right)}": _points(curve, name, by)
        for entry in curve[-1:]
        for name in entry
        if name.startswith(right)
    }
    yield line_chart("Dreams of new episodes that were right", label, foreseen, share=True)
    promised = {name: _points(curve, f"unseen/{name}_return", by) for name in ("dreamt", "real")}
    if promised["dreamt"]:
        yield line_chart("Return from the newest real moments", label, promised)
    yield line_chart("Memory in MiB", label, {"resident": _points(curve, "resident_mib", by)})
    recalls = {
        name: _points(curve, f"dynamics/{key}_recall", by)
        for name, key in (("rewards", "rewarding"), ("ends", "terminating"))
    }
    yield line_chart(
        "World model: recall in training",
        label,
        {name: points for name, points in recalls.items() if points},
        share=True,
    )


def _fidelity(fidelity: Mapping[str, Any]) -> Iterator[str]:
    horizons = fidelity["horizons"]
    shares = {
        "all": "exact",
        "what the past determines": "determined_exact",
        "rewards": "rewards",
        "ends": "terminations",
    }
    curves = {
        name: points
        for name, key in shares.items()
        if (points := _points(horizons, key, "horizon"))
    }
    yield line_chart("Right so far", "environment steps of the dream", curves, share=True)
    for title, key in (("R2 of reals", "r2"), ("PSNR of pictures, dB", "psnr")):
        paths = {path for entry in horizons for path in entry["agreement"][key]}
        values = {
            path: [
                (float(entry["horizon"]), max(-1.0, float(entry["agreement"][key][path])))
                for entry in horizons
                if entry["agreement"][key].get(path) is not None
            ]
            for path in sorted(paths)
        }
        yield line_chart(title, "environment steps of the dream", values)


def _films(films: Mapping[str, bytes]) -> Iterator[str]:
    for name, film in films.items():
        yield f"<p>{_FILMS.get(name, html.escape(name))}</p>"
        yield f'<img alt="film: {html.escape(name)}" src="{data_url("gif", film)}">'
