"""The page of a suite: ``results.json`` in, one self-contained ``suite.html`` out; and the same tables as Markdown.

Values stand with their intervals, averages with the number of tasks they are over, published numbers with their source
and how sure it is. What was left out is listed with what to do.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dermlab.core import words
from dermlab.core.errors import DermlabError, InputError
from dermlab.core.files import inside, read_json, write_text
from dermlab.report import html, parts, plots
from dermlab.report.critical_difference import draw_critical_difference
from dermlab.report.photos import thumbnails

FORMAT = 1
MOST_CURVES = 12
N_SAMPLES = 16
PICTURES = {".png": "image/png", ".svg": "image/svg+xml"}
Json = dict[str, Any]


def write_suite(folder: str | Path) -> Path:
    """Write ``suite.html`` into a suite's folder, its diagrams and the reports of its bake-offs, and return its path.

    Raises:
        InputError: there is no ``results.json``, or it is of another format.
    """
    folder = Path(folder)
    record = read_results(folder)
    for table in record["tables"]:
        if table["diagram"]:
            draw_critical_difference(table["across"], inside(folder, table["diagram"]))
    for task in record["tasks"]:
        if task.get("bakeoff"):
            html.write_report(inside(folder, task["bakeoff"]).parent, photos=task["photos"])
    return write_text(folder / "suite.html", html.page("suite.html", view(record, folder)))


def read_results(folder: str | Path) -> Json:
    """Read ``results.json`` of a suite's folder.

    Raises:
        InputError: there is none, or it is of another format.
    """
    path = Path(folder) / "results.json"
    record = read_json(path)
    if not isinstance(record, dict) or record.get("format") != FORMAT or "suite" not in record:
        raise InputError(f"{path}: is no result of a suite of format {FORMAT}; run dermlab suite again")
    return record


def view(record: Json, folder: Path) -> Json:
    """Return the variables of ``suite.html``.

    Args:
        record: the content of ``results.json``.
        folder: the suite's folder, for its pictures.
    """
    sections = [
        *(_average(table, record) for table in record["tables"]),
        *_by_size(record),
        *_resolution(record),
        *_few_shot(record),
        *_trained(record),
        *_evaluator(record),
        *_beside(record),
        *_families(record),
        *_left_out(record),
        _protocol(record),
    ]
    return {
        "title": record["title"],
        "sentence": sentence(record),
        "about": record["about"],
        "citation": record["citation"],
        "made_at": record["made_at"],
        "sections": sections,
        "pictures": _pictures(record, folder),
        "samples": _samples(record, folder),
        "bakeoffs": [
            {"task": task["task"], "report": task["bakeoff"]} for task in record["tasks"] if task.get("bakeoff")
        ],
    }


def sentence(record: Mapping[str, Any]) -> str:
    """Say what was run and what was not."""
    n, models = len(record["tasks"]), len({row["model"] for row in record["rows"]})
    text = f"{words.plural(models, 'model')} on {n} of {words.plural(record['n_tasks'], 'task')}"
    missing = record["n_tasks"] - n
    if missing:
        text += f"; {missing} not run here, listed below with what they need"
    return text + "."


def _part(name: str, title: str, said: str, blocks: Sequence[Json], notes: Sequence[str] = ()) -> Json:
    return {
        "id": name,
        "title": title,
        "sentence": said,
        "tone": "",
        "skipped": False,
        "notes": list(notes),
        "blocks": list(blocks),
    }


METHODS = {
    "knn": "Nearest neighbours on frozen features",
    "linear": "A linear head on frozen features",
    "mlp": "A small network on frozen features",
    "trained": "Trained networks",
    "fusion": "Frozen features with the questionnaire",
}


def _average(table: Json, record: Json) -> Json:
    """Return the section of one method: a table of models × tasks and their ranks."""
    kinds = {task["task"]: words.metric_words(task["metric"])[2] for task in record["tasks"]}
    tasks = [*table["tasks"], *table["left_out"]]
    rows = [
        [
            item["model"],
            *(
                parts.written(item["values"].get(task), kinds[task]) if task in item["values"] else "–"
                for task in tasks
            ),
            "–" if item["mean"] is None else f"{100 * item['mean']:.1f}",
        ]
        for item in table["models"]
    ]
    label = " or ".join(words.metric_words(name)[0] for name in table["metrics"])
    head = ["Model", *tasks, f"Mean of {len(table['tasks'])}"]
    blocks = [parts.table(f"{label} on test", head, rows)]
    notes = [words.capital(text) + "." for text in (table["across"] or {}).get("warnings", [])]
    for row in record["rows"]:
        if row["method"] != table["method"]:
            continue
        notes += [f"{row['task']}: {text}." for text in row["warnings"] if text.startswith("contaminated")]
        if not row["converged"]:
            notes.append(f"{row['model']} on {row['task']} did not converge: its value may change.")
    said = f"{words.capital(label)} on test with 95% intervals over the groups of each task."
    if len(table["models"]) > 1:
        said += f" The mean is over the {words.plural(len(table['tasks']), 'task')} that every model has."
    if table["left_out"]:
        notes.append(f"Not in the mean, since some model lacks them: {', '.join(table['left_out'])}.")
    if table["across"]:
        pairs = [
            [
                f"{pair['a']} − {pair['b']}",
                parts.change({**pair, "value": pair["difference"]}, "share"),
                " : ".join(str(n) for n in pair["wins"]),
                words.p_value(pair["p_adjusted"]),
                {"a better": f"{pair['a']} better", "b better": f"{pair['b']} better"}.get(
                    pair["verdict"], pair["verdict"]
                ),
            ]
            for pair in table["across"]["pairs"]
        ]
        heads = ["Pair", "Difference over tasks", "Won : lost : tied", "p after Holm", "Verdict"]
        blocks.append(
            parts.details(
                f"Ranks over {table['across']['n_datasets']} tasks ({table['across']['test']}, Wilcoxon with Holm)",
                parts.table(
                    "mean ranks",
                    ["Model", "Mean rank"],
                    [[item["name"], f"{item['mean_rank']:.2f}"] for item in table["across"]["models"]],
                ),
                parts.table("pairs of models over tasks", heads, pairs),
            )
        )
    return _part(
        f"method-{table['method']}", METHODS.get(str(table["method"]), str(table["method"])), said, blocks, notes
    )


def _by_size(record: Json) -> list[Json]:
    """Return the mean against the number of parameters, for methods with several sized models."""
    found = []
    for table in record["tables"]:
        sized = [item for item in table["models"] if item["n_parameters"] and item["mean"] is not None]
        if len({item["n_parameters"] for item in sized}) < 3 or not table["tasks"]:
            continue
        sized.sort(key=lambda item: item["n_parameters"])
        line = plots.Line(
            "mean over tasks",
            tuple(item["n_parameters"] / 1e6 for item in sized),
            tuple(item["mean"] for item in sized),
        )
        label = words.metric_words(table["metrics"][0])[0]
        chart = plots.chart([line], x="parameters of the encoder, in millions", y=label, log=True)
        rows = [[item["model"], f"{item['n_parameters'] / 1e6:.1f}", f"{100 * item['mean']:.1f}"] for item in sized]
        found.append(
            _part(
                f"size-{table['method']}",
                f"Size and performance: {table['method']}",
                f"Mean over {words.plural(len(table['tasks']), 'task')}. Models of other sizes differ in pretraining "
                "too: the line is no effect of size alone.",
                [
                    {"kind": "chart", "chart": chart},
                    parts.table("size", ["Model", "Parameters in millions", "Mean"], rows),
                ],
            )
        )
    return found


def _resolution(record: Json) -> list[Json]:
    found = []
    for task in record["tasks"]:
        study = task.get("resolution")
        if not study:
            continue
        rows = [
            [
                item["model"],
                item["method"],
                f"{item['size_px']}",
                item["way"],
                f"{item['input_px']}",
                parts.written(item["metrics"].get(task["metric"]), words.metric_words(task["metric"])[2]),
                words.rate(item["images_per_second"]),
            ]
            for item in study["rows"]
        ]
        heads = [
            "Model",
            "Head",
            "Photo px",
            "Enlarged by",
            "Input px",
            words.metric_words(task["metric"])[0],
            "Photos/s",
        ]
        found.append(
            _part(
                f"resolution-{task['task']}",
                f"Resolution: {task['title'] or task['task']}",
                study["sentence"],
                [parts.table("resolution study", heads, rows, text_columns=2)],
                study["warnings"],
            )
        )
    return found


def _few_shot(record: Json) -> list[Json]:
    found = []
    for task in record["tasks"]:
        few = task.get("few_shot")
        if not few:
            continue
        label, _, kind = words.metric_words(few["metric"])
        blocks: list[Json] = []
        for head in dict.fromkeys(curve["head"] for curve in few["curves"]):
            curves = [curve for curve in few["curves"] if curve["head"] == head]
            lines = [
                plots.Line(
                    curve["encoder"],
                    tuple(point["labels"] for point in curve["points"]),
                    tuple(point[few["metric"]]["value"] for point in curve["points"]),
                    tuple(point[few["metric"]]["low"] for point in curve["points"]),
                    tuple(point[few["metric"]]["high"] for point in curve["points"]),
                )
                for curve in curves
            ]
            blocks.append({"kind": "heading", "text": head})
            blocks.append(
                {"kind": "chart", "chart": plots.chart(lines, x="labelled photos", y=label, x_kind="count", log=True)}
            )
            rows = [
                [
                    curve["encoder"],
                    point["size"],
                    f"{point['labels']:,.0f}",
                    parts.written(point[few["metric"]], kind),
                ]
                for curve in curves
                for point in curve["points"]
            ]
            table = parts.table("few labels", ["Encoder", "Drawn", "Labels", label], rows, text_columns=2)
            blocks.append(parts.details(f"Every size: {head}", table))
        draws = words.plural(few["repeats"], "draw")
        said = f"{draws} of each size on the first seed's split; {parts.measured(few)} on test."
        found.append(_part(f"few-{task['task']}", f"Few labels: {task['title'] or task['task']}", said, blocks))
    return found


def _trained(record: Json) -> list[Json]:
    """Return the comparison of trained networks: the epoch best by val beside the last one."""
    rows = []
    for row in record["rows"]:
        if row["kind"] != "trained":
            continue
        for name in ("top1", "macro_f1"):
            if name not in row["metrics"]:
                continue
            kind = words.metric_words(name)[2]
            theirs = [
                item
                for item in record["beside"]
                if (item["task"], item["ours"], item["theirs"], item["metric"])
                == (row["task"], row["model"], row["model"], name)
            ]
            rows.append(
                [
                    row["model"],
                    row["task"],
                    words.metric_words(name)[0],
                    parts.written(row["metrics"][name], kind),
                    parts.written(row["last_epoch"].get(name), kind) if row["last_epoch"] else "–",
                    words.score(theirs[0]["published"], kind) if theirs else "–",
                    theirs[0]["verdict"] if theirs else "–",
                ]
            )
    if not any(row["last_epoch"] for row in record["rows"]):
        return []
    heads = ["Network", "Task", "Metric", "Best epoch by val", "Last epoch", "Published", "Ours beside it"]
    said = (
        "The network is that of the epoch that was best on val; the last epoch stands beside it, for a notebook that "
        "copies its best weights by reference reports those of its last epoch."
    )
    return [
        _part(
            "trained", "Trained networks, best and last epoch", said, [parts.table(said, heads, rows, text_columns=3)]
        )
    ]


def _evaluator(record: Json) -> list[Json]:
    rows = []
    for row in record["rows"]:
        scores = row.get("medmnist")
        if not scores:
            continue
        own = row["metrics"]
        accuracy = own.get("top1") or own.get("label_accuracy") or {}
        rows.append(
            [
                row["model"],
                row["method"],
                row["task"],
                f"{scores['auc']:.4f}",
                f"{own['auroc']['value']:.4f}" if "auroc" in own else "–",
                f"{scores['acc']:.4f}",
                f"{accuracy['value']:.4f}" if accuracy else "–",
            ]
        )
    if not rows:
        return []
    heads = ["Model", "Method", "Task", "AUC, theirs", "AUROC, ours", "ACC, theirs", "Accuracy, ours"]
    said = "MedMNIST's own evaluation code on the same predictions, next to ours: they must agree."
    return [_part("evaluator", "By MedMNIST's own evaluator", said, [parts.table(said, heads, rows, text_columns=3)])]


def _beside(record: Json) -> list[Json]:
    if not record["published"]:
        return []
    rows = [
        [
            item["task"],
            f"{item['ours']}, {item['method']}",
            words.metric_words(item["metric"])[0],
            parts.written(item, words.metric_words(item["metric"])[2]),
            item["theirs"],
            words.score(item["published"], words.metric_words(item["metric"])[2]),
            item["verdict"],
            item["sure"],
            "; ".join(text for text in (item["source"], item["conditions"]) if text),
        ]
        for item in record["beside"]
    ]
    heads = ["Task", "Ours", "Metric", "Value", "Theirs", "Value there", "Ours beside it", "How sure", "Source"]
    said = (
        "An interval of ours says where our value could lie with other patients. Where theirs lies inside, the data "
        "cannot tell. Their own uncertainty is not published: a difference is no test of one model against another."
    )
    blocks = [parts.table("ours beside theirs", heads, rows, text_columns=9)] if rows else []
    return [
        _part(
            "beside",
            "Beside what was published",
            said,
            [*blocks, parts.details("Every published number", all_published(record))],
        )
    ]


def all_published(record: Json) -> Json:
    """Return the table of every published number with its source and sureness."""
    rows = [
        [
            item["task"],
            item["model"],
            item["protocol"],
            words.metric_words(item["metric"])[0],
            words.score(item["value"], words.metric_words(item["metric"])[2]),
            words.count(item["n"]),
            item["sure"],
            item["source"],
        ]
        for item in record["published"]
    ]
    heads = ["Task", "Model", "Protocol", "Metric", "Value", "Test cases", "How sure", "Source"]
    return parts.table("published numbers", heads, rows, text_columns=8)


def _families(record: Json) -> list[Json]:
    if not record["elsewhere"]:
        return []
    rows = [[item["name"], item["tasks"], item["status"], item["published"]] for item in record["elsewhere"]]
    heads = ["Family", "Tasks", "Status", "Published"]
    said = "Families of the publication that are no classification tasks, and so no part of the tables above."
    return [_part("elsewhere", "Not in this suite", said, [parts.table(said, heads, rows, text_columns=4)])]


def _left_out(record: Json) -> list[Json]:
    if not record["skipped"]:
        return []
    rows = [[item["task"], item["model"] or "all", item["why"], item["reason"]] for item in record["skipped"]]
    said = "Tasks and models that were not run, each with the reason and what to do."
    heads = ["Task", "Model", "Why", "What to do"]
    return [_part("left-out", "Left out", said, [parts.table(said, heads, rows, text_columns=4)])]


def _protocol(record: Json) -> Json:
    rows = [
        [
            task["task"],
            task["title"],
            words.count(task["data"]["n"]),
            f"{words.count(task['data']['n_groups'])} {words.groups_word(task['data']['group_by'])}",
            str(len(task["data"]["classes"])),
            task["data"]["licence"] or "unknown",
            " ".join(words.capital(text) + "." for text in task["warnings"]),
        ]
        for task in record["tasks"]
    ]
    heads = ["Task", "What is asked", "Photos", "Of", "Classes", "Licence", "To know"]
    said = "What was measured on what" + (
        "; where ours departs from what was published is under the table." if record["differences"] else "."
    )
    return _part(
        "protocol",
        "Data and protocol",
        said,
        [parts.table(said, heads, rows, text_columns=2), parts.text(*record["differences"])],
    )


def _pictures(record: Json, folder: Path) -> list[Json]:
    """Return critical-difference diagrams, figures of studies and training curves as data URIs."""
    wanted: list[tuple[str, str]] = []
    for table in record["tables"]:
        if table["diagram"]:
            wanted.append((f"Mean ranks over tasks: {table['method']}", table["diagram"]))
    for task in record["tasks"]:
        wanted += [(text, file) for text, file in (task.get("resolution") or {}).get("figures", [])]
    curves = []
    for row in record["rows"]:
        if row["kind"] == "trained":
            run = inside(folder, row["run"])
            for place in sorted(run.parent.glob(f"{run.name}*/checkpoints/*/curves.png"))[:1]:
                curves.append((f"{row['model']} on {row['task']}", place.relative_to(folder.resolve()).as_posix()))
    found = []
    for text, name in [*wanted, *curves[:MOST_CURVES]]:
        file = inside(folder, name)
        if file.is_file():
            coded = base64.b64encode(file.read_bytes()).decode("ascii")
            found.append({"text": text, "uri": f"data:{PICTURES[file.suffix]};base64,{coded}"})
    return found


def _samples(record: Json, folder: Path) -> list[Json]:
    """Return a grid of photos of each task that networks were trained on, with their labels."""
    from dermlab.data.dataset import Dataset

    found = []
    for task in dict.fromkeys(row["task"] for row in record["rows"] if row["kind"] == "trained"):
        place = next(item.get("folder") for item in record["tasks"] if item["task"] == task)
        try:
            dataset = Dataset.open(place)
            labels = dataset.labels(next(item["target"] for item in record["tasks"] if item["task"] == task))
        except DermlabError:
            continue
        step = max(1, len(dataset) // N_SAMPLES)
        rows = range(0, step * min(N_SAMPLES, len(dataset)), step)
        ids = [str(dataset.image_ids[row]) for row in rows]
        pictures = thumbnails(place, ids)
        found.append(
            {
                "task": task,
                "photos": [
                    {"uri": pictures[name], "label": str(labels[row]) if labels.ndim == 1 else ""}
                    for name, row in zip(ids, rows, strict=True)
                    if name in pictures
                ],
            }
        )
    return found


def as_markdown(record: Json) -> str:
    """Return the results as a Markdown page for the documentation; numbers are those of the page."""
    lines = [f"## {record['title']}", "", record["about"], "", sentence(record), ""]
    for section in [
        *(_average(table, record) for table in record["tables"]),
        *_trained(record),
        *_evaluator(record),
        *_beside(record)[:1],
        *_families(record),
        *_left_out(record),
    ]:
        lines += [f"### {section['title']}", "", section["sentence"], ""]
        lines += [f"- {note}" for note in section["notes"]] + [""] * bool(section["notes"])
        for block in section["blocks"]:
            if block["kind"] == "table":
                lines += [*_markdown_table(block), ""]
    if record["differences"]:
        lines += [
            "### Where ours departs from what was published",
            "",
            *(f"- {text}" for text in record["differences"]),
        ]
    return "\n".join(lines).rstrip() + "\n"


def _markdown_table(block: Json) -> list[str]:
    def cells(row: Sequence[Json]) -> str:
        return "| " + " | ".join(_plain(cell["text"]) for cell in row) + " |"

    rule = "|" + "|".join("---:" if cell["num"] else "---" for cell in block["head"]) + "|"
    return [cells(block["head"]), rule, *(cells(row) for row in block["rows"])]


def _plain(text: str) -> str:
    """Return a text for a cell of a Markdown table: in one line, with nothing that Markdown or a browser would read."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("\n", " ")
