"""A clinic's own export: a table (CSV, TSV, JSON Lines, Parquet, Excel) and a folder of photos.

Columns are recognised by their names and can be named by options; what is left becomes typed questionnaire metadata.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from dermlab.core import words
from dermlab.core.errors import InputError
from dermlab.data.card import RESERVED, Card, MetadataColumn, Target, TargetKind
from dermlab.data.manifest import TEXT
from dermlab.data.remote import allowed_hosts, check_url, fetch
from dermlab.data.sources import SourceData
from dermlab.data.sources.files import (
    NO_SUCH_FILE,
    OUTSIDE,
    ImageFiles,
    Matcher,
    find_images,
    image_ids,
    require_folder,
    without_extension,
)
from dermlab.data.sources.tables import (
    TABLES,
    Table,
    as_ids,
    class_order,
    convert,
    infer_kind,
    metadata_column,
    names_a_person,
    normalised,
    read_table,
)

ROLES: dict[str, tuple[str, ...]] = {
    "image": (
        *("filename", "file", "imagefile", "imagepath", "filepath", "path", "imagename", "image", "img"),
        *("imageid", "imgid", "isicid", "photo", "photoid", "photofile", "picture", "name", "id"),
    ),
    "label": (
        *("label", "labels", "diagnosis", "diagnostic", "dx", "class", "classname", "target", "category"),
        *("disease", "condition", "pathology", "groundtruth"),
        *("diagnose", "hauptdiagnose", "klasse", "kategorie", "befund"),
        *(
            "diagnostique",
            "classe",
            "categorie",
            "etiquette",
            "diagnostico",
            "clase",
            "categoria",
            "etiqueta",
            "rotulo",
        ),
    ),
    "patient_id": (
        "patientid",
        "patient",
        "patientnumber",
        "patid",
        "pat",
        "subjectid",
        "subject",
        "personid",
        "patientenid",
        "patientennummer",
        "idpatient",
        "paciente",
        "pacienteid",
        "idpaciente",
    ),
    "lesion_id": ("lesionid", "lesion", "lesionnumber"),
    "site": ("site", "siteid", "centre", "center", "clinic", "hospital", "institution"),
    "captured_at": ("capturedat", "capturedate", "date", "photodate", "imagedate", "acquisitiondate", "visitdate"),
    "skin_type": (
        "skintype",
        "fitzpatrick",
        "fitspatrick",
        "fitzpatrickskintype",
        "fitzpatrickscale",
        "fst",
        "phototype",
    ),
    "modality": ("modality", "imagetype", "imagemodality"),
    "mask_path": ("maskpath", "mask", "maskfile", "segmentation"),
    "event": ("event",),
    "time_to_event": ("timetoevent",),
}
"""Role -> names by which a column is recognised, without case, spaces and signs; the first that occurs wins."""

# A column "site" full of these is where on the body, not where in the world.
_BODY = frozenset(
    "face back chest arm forearm leg thigh hand foot neck scalp ear nose lip abdomen trunk torso head head/neck "
    "anterior torso,posterior torso,upper extremity,lower extremity,palms/soles,genital".replace(",", " ").split()
)
_MODALITY_WORDS = {
    "clinical": ("clinical", "clinic", "macro", "macroscopic", "overview", "closeup", "clinicalcloseup"),
    "dermoscopy": ("dermoscopy", "dermoscopic", "dermatoscopy", "dermatoscopic", "dermoscope"),
    "tbp": ("tbp", "totalbodyphotography", "tbptilecloseup", "3dtbp"),
    "histopathology": ("histopathology", "histology", "histopathologic", "wsi"),
}
_ROMAN = {"i": 1, "ii": 2, "iii": 3, "iv": 4, "v": 5, "vi": 6}
_DATE_FORMATS = ("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%Y.%m.%d")
_MAYBE_MISSING = ("unk", "unknown", "not known", "not recorded", "missing", "?", "-", "--", "-1", "999", "9999")
_LIKE_A_LABEL = re.compile(
    r"diag|class|clas[ei]|klass|label|befund|categ|kateg|malign|tumou?r|outcome|result|ergebnis|dx"
)
NONE = "-"
"""Given as a column's name it means: there is none, do not look for one."""


@dataclass
class _Columns:
    """Which column plays which role, and what is left."""

    of: dict[str, str] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)
    onehot: list[str] = field(default_factory=list)

    def used(self) -> set[str]:
        return {*self.of.values(), *self.labels, *self.onehot}


def read(
    path: Path,
    *,
    name: str | None = None,
    image_folder: Path | None = None,
    image_column: str | None = None,
    label_column: Sequence[str] = (),
    onehot_columns: Sequence[str] = (),
    patient_column: str | None = None,
    lesion_column: str | None = None,
    site_column: str | None = None,
    date_column: str | None = None,
    metadata_columns: Sequence[str] = (),
    label_separator: str | None = None,
    lesion_ids: Literal["auto", "unique", "per-patient"] = "auto",
    kind: TargetKind | None = None,
    classes: Sequence[str] = (),
    delimiter: str | None = None,
    encoding: str | None = None,
    missing_values: Sequence[str] = (),
) -> SourceData:
    """Read a table and the folder of images that it names.

    Args:
        path: the table, or a folder that holds exactly one.
        name: name of the data set; None takes the folder's.
        image_folder: where the images lie, subfolders included; None is the table's folder.
        image_column: column that names the image files, with or without folders and extension.
        label_column: columns with labels, the default target first.
        onehot_columns: 0/1 columns, one a class: one target, multilabel where a row may have several.
        patient_column: column of patients.
        lesion_column: column of lesions.
        site_column: column of the clinic or camera, not of the place on the body.
        date_column: column of the day the photo was taken.
        metadata_columns: columns to keep as questionnaire; default all that have few enough values.
        label_separator: what separates several labels of one image; makes the target multilabel.
        lesion_ids: ``unique`` over all patients, numbered ``per-patient``, or ``auto``: per patient where one id occurs
            under several patients.
        kind: kind of the (first) target; None is binary for two classes, else multiclass.
        classes: its classes in order; default in natural order.
        delimiter: see :func:`read_table`.
        encoding: see :func:`read_table`.
        missing_values: see :func:`read_table`.

    Any column can be given as ``-`` for 'there is none'.
    """
    file = find_table(path)
    table = read_table(file, delimiter=delimiter, encoding=encoding, missing_values=missing_values)
    root = require_folder(image_folder.expanduser() if image_folder else file.parent, "the folder of the images")
    chosen = {
        "image": image_column,
        "patient_id": patient_column,
        "lesion_id": lesion_column,
        "site": site_column,
        "captured_at": date_column,
    }
    return from_table(
        table,
        find_images(root),
        name=name or file.resolve().parent.name,
        source=f"dermlab data import csv {file.name}",
        chosen=chosen,
        label_column=label_column,
        onehot_columns=onehot_columns,
        metadata_columns=metadata_columns,
        label_separator=label_separator,
        lesion_ids=lesion_ids,
        kind=kind,
        classes=classes,
    )


def find_table(path: Path) -> Path:
    """Return the table that ``path`` is, or the only one in the folder that ``path`` is."""
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; expected a table or a folder that holds one")
    if path.is_file():
        return path
    tables = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in TABLES and entry.suffix != ".txt")
    if len(tables) == 1:
        return tables[0]
    names = ", ".join(table.name for table in tables)
    if not tables:
        raise InputError(
            f"{path}: holds no table ({', '.join(TABLES)}); photos in class folders are the source 'folder'"
        )
    raise InputError(f"{path}: holds several tables; name the one to import: {names}")


def from_table(
    table: Table,
    files: ImageFiles,
    *,
    name: str,
    source: str,
    chosen: dict[str, str | None] | None = None,
    label_column: Sequence[str] = (),
    onehot_columns: Sequence[str] = (),
    metadata_columns: Sequence[str] = (),
    label_separator: str | None = None,
    lesion_ids: Literal["auto", "unique", "per-patient"] = "auto",
    kind: TargetKind | None = None,
    classes: Sequence[str] = (),
) -> SourceData:
    """Join a table with the image files that it names; arguments as :func:`read`."""
    notes = list(table.notes)
    table = _without_repeated_rows(table, notes)
    matcher = Matcher(files)
    columns = _find_columns(table, matcher, files, chosen or {}, label_column, onehot_columns, notes)
    paths, quarantined = _match(table, columns.of["image"], matcher, files, notes)
    manifest = pd.DataFrame(
        {"image_id": _ids(table, columns, paths, files), "source_path": paths}, index=table.frame.index
    )
    _add_groups(manifest, table, columns, lesion_ids, notes)
    _add_reserved(manifest, table, columns, matcher, files, notes)
    targets = _add_targets(manifest, table, columns, label_separator, kind, classes, notes)
    metadata = _add_metadata(manifest, table, columns, metadata_columns, notes)
    card = Card(name=name, source=source, targets=targets, metadata=metadata)
    found = manifest["source_path"].notna()
    if not found.any():
        raise InputError(f"{table.file}: none of its {len(manifest):,} images is under {files.root}")
    return SourceData(
        root=files.root,
        manifest=manifest[found].reset_index(drop=True),
        card=card,
        quarantined=[*files.set_aside, *quarantined],
        notes=tuple(notes),
    )


def _without_repeated_rows(table: Table, notes: list[str]) -> Table:
    repeated = table.frame.astype(str).duplicated().to_numpy()
    if not repeated.any():
        return table
    notes.append(f"{repeated.sum():,} rows of {table.file.name} repeat an earlier row word for word and were left out")
    kept = np.flatnonzero(~repeated)
    files = None if table.files is None else tuple(table.files[row] for row in kept)
    return Table(table.file, table.frame.iloc[kept].reset_index(drop=True), table.lines[kept], table.notes, files)


# --- columns --------------------------------------------------------------------------------------------------------


def require_column(table: Table, name: str) -> str:
    """Return the table's column of that name (letter case is ignored where that is clear), else raise InputError."""
    if name in table.frame:
        return name
    near = [column for column in table.columns if column.casefold() == name.casefold()]
    if len(near) == 1:
        return near[0]
    raise InputError(f"{table.file}: no column {name!r}; there is {', '.join(table.columns)}")


def _find_columns(
    table: Table,
    matcher: Matcher,
    files: ImageFiles,
    chosen: dict[str, str | None],
    label_column: Sequence[str],
    onehot_columns: Sequence[str],
    notes: list[str],
) -> _Columns:
    columns = _Columns(onehot=[require_column(table, name) for name in onehot_columns])
    named = [name for name in label_column if name != NONE]
    columns.labels = [require_column(table, name) for name in named]
    for role, choice in chosen.items():
        if choice not in (None, NONE):
            columns.of[role] = require_column(table, str(choice))
    by_name = {normalised(name): name for name in reversed(table.columns)}
    if "image" not in columns.of:
        columns.of["image"] = _image_column(table, by_name, columns.used(), matcher, files)
    for role, names in ROLES.items():
        if role in ("image", "label") or role in columns.of or chosen.get(role) == NONE:
            continue
        free = [by_name[key] for key in names if key in by_name and by_name[key] not in columns.used()]
        if role == "site":
            free = [name for name in free if not _is_on_the_body(table.frame[name])]
        if free:
            columns.of[role] = free[0]
    if not columns.labels and not columns.onehot and NONE not in label_column:
        free = [by_name[key] for key in ROLES["label"] if key in by_name and by_name[key] not in columns.used()]
        recurring = [name for name in free if not _is_free_text(table.frame[name])]
        columns.labels = (recurring or free)[:1]
        if not free:
            columns.onehot = _onehot_columns(table, columns.used())
            if columns.onehot:
                notes.append(f"the 0/1 columns {', '.join(columns.onehot)} are the classes of one target")
    roles = [*columns.of.items(), *(("label", name) for name in columns.labels)]
    notes.append("columns taken: " + ", ".join(f"{name} as {role}" for role, name in roles))
    return columns


def _image_column(table: Table, by_name: dict[str, str], used: set[str], matcher: Matcher, files: ImageFiles) -> str:
    """Return the column most of whose entries are files; of equals the one whose name says so first."""
    known = [by_name[key] for key in ROLES["image"] if key in by_name]
    candidates = [name for name in dict.fromkeys([*known, *table.columns]) if name not in used]
    sample = np.unique(np.linspace(0, len(table.frame) - 1, 200).astype(int))
    best, most = "", 0
    for name in candidates:
        entries = [entry for entry in table.frame[name].iloc[sample] if isinstance(entry, str)]
        hits = sum("://" in entry or bool(matcher.find(entry)) for entry in entries)
        if hits > most:
            best, most = name, hits
    if best:
        return best
    if not files.paths:
        raise InputError(f"{files.root}: holds no image file; name the images' folder with --image_folder")
    where = (
        f"for example {known[0]} = {table.frame[known[0]].dropna().iloc[:1].tolist()}" if known else "no likely name"
    )
    raise InputError(
        f"{table.file}: no column names files under {files.root} ({where}; there is {files.paths[0]!r}); "
        "name it with --image_column, the folder with --image_folder"
    )


def _is_on_the_body(values: pd.Series) -> bool:
    levels = values.dropna().str.casefold().unique()
    return any(word in _BODY for level in levels for word in [level, *level.split()])


def _onehot_columns(table: Table, used: set[str]) -> list[str]:
    found = [
        name
        for name in table.columns
        if name not in used
        and isinstance(table.frame[name].dtype, pd.StringDtype)
        and table.frame[name].isin(["0", "1", "0.0", "1.0"]).all()
    ]
    if len(found) < 2:
        return []
    total = sum(
        (table.frame[name].isin(["1", "1.0"]).astype(int) for name in found), start=pd.Series(0, table.frame.index)
    )
    return found if (total == 1).all() else []


# --- images and groups ----------------------------------------------------------------------------------------------


def _match(
    table: Table, column: str, matcher: Matcher, files: ImageFiles, notes: list[str]
) -> tuple[pd.Series, list[tuple[str, str]]]:
    """Return the absolute path of each row's image (null where there is none) and the reasons for those."""
    entries = table.frame[column]
    blank = entries.isna().to_numpy()
    table.refuse(blank, column, "is blank; every row names an image")
    paths: list[str | None] = [None] * len(entries)
    taken: dict[str, int] = {}
    quarantined: list[tuple[str, str]] = []
    set_aside = {path.casefold() for path, _ in files.set_aside}
    remote: list[int] = []
    refused: list[InputError] = []
    hosts = allowed_hosts()
    for row, entry in enumerate(entries):
        if "://" in entry:
            try:
                check_url(entry, hosts)
                remote.append(row)
            except InputError as error:
                refused.append(table.at(row, str(error), column))
                quarantined.append((entry, str(error).removeprefix(f"{entry!r}: ")))
            continue
        found = matcher.find(entry)
        if len(found) == 1:
            if found[0] in taken:
                first = table.lines[taken[found[0]]]
                raise table.at(row, f"{entry!r} is the image of row {first} already; one row an image", column)
            taken[found[0]] = row
            paths[row] = files.absolute(found[0])
        elif found:
            quarantined.append((entry, f"{len(found)} files may be meant, as {found[0]} and {found[1]}"))
        elif entry.replace("\\", "/").removeprefix("./").casefold() not in set_aside:  # what was set aside is listed
            quarantined.append((entry, OUTSIDE if _leads_out(entry, files.root) else NO_SUCH_FILE))
    if len(refused) == len(entries):
        raise refused[0]
    if remote:
        copies = fetch([entries.iloc[row] for row in remote], source=table.file, rows=table.lines[remote].tolist())
        for row, copy in zip(remote, copies, strict=True):
            paths[row] = str(copy)
    unnamed = [path for path in files.paths if path not in taken]
    if unnamed:
        several = len(unnamed) > 1
        notes.append(
            f"{words.plural(len(unnamed), 'image')} under {files.root.name} {'are' if several else 'is'} in no row of "
            f"{table.file.name}: {', '.join(unnamed[:3])}{', …' if len(unnamed) > 3 else ''}"
        )
    return pd.Series(paths, index=entries.index, dtype=TEXT), quarantined


def _leads_out(entry: str, root: Path) -> bool:
    """Tell whether an entry is the path of a file outside the folder, relative to it or absolute."""
    path = root / entry.replace("\\", "/")
    return not Path(os.path.normpath(path)).is_relative_to(root) and path.is_file()


def _ids(table: Table, columns: _Columns, paths: pd.Series, files: ImageFiles) -> pd.Series:
    """Return unique ids: the table's own where it has a column of them, else from the files' names."""
    own = [name for name in table.columns if normalised(name) in ("imageid", "isicid", "imgid", "photoid")]
    for name in own:
        ids = as_ids(table.frame[name])
        if isinstance(ids.dtype, pd.StringDtype) and ids.notna().all() and ids.is_unique:
            plain = ids.map(without_extension).astype(TEXT)
            return plain if plain.is_unique and not plain.str.contains("/", regex=False).any() else ids
    root = f"{files.root}/"
    names = [
        path.removeprefix(root) if isinstance(path, str) and path.startswith(root) else entry
        for path, entry in zip(paths, table.frame[columns.of["image"]], strict=True)
    ]
    return pd.Series(image_ids(names), index=table.frame.index, dtype=TEXT)


def _add_groups(manifest: pd.DataFrame, table: Table, columns: _Columns, lesion_ids: str, notes: list[str]) -> None:
    for role in ("patient_id", "lesion_id"):
        if role in columns.of:
            manifest[role] = as_ids(table.frame[columns.of[role]])
    if "patient_id" not in manifest or "lesion_id" not in manifest:
        return
    pairs = manifest[["patient_id", "lesion_id"]].dropna().drop_duplicates()
    shared = int((pairs.groupby("lesion_id").size() > 1).sum())
    if lesion_ids == "per-patient" or (lesion_ids == "auto" and shared):
        # One lesion is on one patient: the same number under two is two lesions.
        manifest["lesion_id"] = manifest["patient_id"] + "/" + manifest["lesion_id"]  # unknown where the patient is
        if lesion_ids == "auto":
            notes.append(
                f"{shared:,} values of {columns.of['lesion_id']} stand under several patients: lesions are taken as "
                "numbered for each patient (--lesion_ids unique if they are not)"
            )


# --- reserved columns -----------------------------------------------------------------------------------------------


def _add_reserved(
    manifest: pd.DataFrame, table: Table, columns: _Columns, matcher: Matcher, files: ImageFiles, notes: list[str]
) -> None:
    frame, of = table.frame, columns.of
    if "site" in of:
        manifest["site"] = as_ids(frame[of["site"]])
    if "captured_at" in of:
        manifest["captured_at"] = _dates(table, of["captured_at"])
    if "skin_type" in of:
        manifest["skin_type"] = skin_types(frame[of["skin_type"]], notes)
    if "modality" in of:
        meanings = {word: modality for modality, known in _MODALITY_WORDS.items() for word in known}
        values = (
            frame[of["modality"]].map(normalised, na_action="ignore").map(meanings, na_action="ignore").astype(TEXT)
        )
        if values.notna().equals(frame[of["modality"]].notna()):
            manifest["modality"] = values
        else:
            del of["modality"]  # another kind of 'image type': metadata
    if "event" in of and "time_to_event" in of:
        for role, kind in (("event", "boolean"), ("time_to_event", "numeric")):
            values = frame[of[role]]
            if infer_kind(values) != kind:
                what = "true or false, or 1 or 0" if kind == "boolean" else "a number"
                raise InputError.at(table.file, f"must be {what} in every row", column=of[role])
            manifest[role] = convert(values, "boolean" if kind == "boolean" else "numeric")
    else:
        of.pop("event", None)
        of.pop("time_to_event", None)
    if "mask_path" in of:
        found = [matcher.find(entry) if isinstance(entry, str) else [] for entry in frame[of["mask_path"]]]
        masks = [files.absolute(paths[0]) if len(paths) == 1 else None for paths in found]
        manifest["source_mask_path"] = pd.Series(masks, index=frame.index, dtype=TEXT)
        lacking = sum(len(paths) != 1 for paths in found) - int(frame[of["mask_path"]].isna().sum())
        if lacking:
            notes.append(f"{lacking:,} masks named in {of['mask_path']} were not found")


def _dates(table: Table, column: str) -> pd.Series:
    """Return dates in ISO 8601 or one of the usual orders; one that could be read in two ways is refused."""
    values = table.frame[column]
    present = values.dropna()
    iso = pd.to_datetime(values, errors="coerce", format="ISO8601", utc=True).dt.tz_localize(None)
    if iso[present.index].notna().all():
        return iso
    readings = []
    for form in _DATE_FORMATS:
        dates = pd.to_datetime(values, errors="coerce", format=form)
        if dates[present.index].notna().all():
            readings.append(dates)
    if readings and all(dates.equals(readings[0]) for dates in readings):
        return readings[0]
    if readings:
        raise InputError.at(table.file, "day and month cannot be told apart; write dates as 2024-05-31", column=column)
    wrong = (iso.isna() & values.notna()).to_numpy()
    table.refuse(wrong, column, "{value} is not a date like 2024-05-31 (or all rows like 31.05.2024)")
    raise AssertionError("unreachable: some date was not read")


def skin_types(values: pd.Series, notes: list[str]) -> pd.Series:
    """Return Fitzpatrick types 1 to 6 from 1, 1.0, II, 'type III'; anything else (I-II) is null, with a note."""

    def number(text: str) -> int | None:
        word = re.sub(r"^(type|fst|fitzpatrick)\s*", "", text.casefold().strip()).removesuffix(".0")
        return _ROMAN.get(word) or (int(word) if re.fullmatch(r"[1-6]", word) else None)

    types = values.map(number, na_action="ignore").astype("Float64").astype("Int8")
    unread = types.isna() & values.notna()
    if unread.any():
        examples = ", ".join(repr(text) for text in values[unread].unique()[:3])
        notes.append(f"{unread.sum():,} skin types are none of 1 to 6 or I to VI ({examples}) and count as missing")
    return types


# --- targets and metadata -------------------------------------------------------------------------------------------


def _add_targets(
    manifest: pd.DataFrame,
    table: Table,
    columns: _Columns,
    separator: str | None,
    kind: TargetKind | None,
    classes: Sequence[str],
    notes: list[str],
) -> tuple[Target, ...]:
    targets: list[Target] = []
    if columns.onehot:
        marks = np.stack([table.frame[name].isin(["1", "1.0"]) for name in columns.onehot], axis=1)
        for name in columns.onehot:
            wrong = ~table.frame[name].isin(["0", "1", "0.0", "1.0"]) & table.frame[name].notna()
            table.refuse(wrong.to_numpy(), name, "{value} is neither 0 nor 1")
        names = np.array(columns.onehot, dtype=object)
        if (marks.sum(axis=1) == 1).all() and kind != "multilabel":
            manifest["label"] = pd.Series(names[marks.argmax(axis=1)], index=manifest.index, dtype=TEXT)
            targets.append(Target(column="label", kind="multiclass", classes=tuple(columns.onehot), default=True))
        else:
            manifest["label"] = pd.Series([list(names[row]) for row in marks], index=manifest.index, dtype=object)
            targets.append(Target(column="label", kind="multilabel", classes=tuple(columns.onehot), default=True))
    for name in columns.labels:
        first = not targets
        column = f"{name}_label" if name in RESERVED else name
        target = make_target(
            table, name, column, separator, kind if first else None, classes if first else (), first, notes
        )
        if target is not None:
            manifest[column], spec = target
            targets.append(spec)
    if not targets:
        near = _likely_labels(table, columns)
        hint = f"did you mean --label_column {near}?" if near else "--label_column names one"
        notes.append(f"no column of labels was found: the data set has no target; {hint}")
    return tuple(targets)


def _is_free_text(values: pd.Series) -> bool:
    return isinstance(values.dtype, pd.StringDtype) and infer_kind(values) == "text"


def _likely_labels(table: Table, columns: _Columns) -> str | None:
    """Return the column that is likeliest to hold labels: named like one, else the one of words with most levels."""
    found: list[tuple[bool, int, str]] = []
    for name in table.columns:
        values = table.frame[name]
        if name in columns.used() or not isinstance(values.dtype, pd.StringDtype):
            continue
        levels = values.nunique()
        is_named = _LIKE_A_LABEL.search(normalised(name)) is not None
        if 2 <= levels <= 50 and (is_named or infer_kind(values) == "categorical"):
            found.append((is_named, levels, name))
    return max(found, key=lambda entry: entry[:2])[2] if found else None


def make_target(
    table: Table,
    name: str,
    column: str,
    separator: str | None,
    kind: TargetKind | None,
    classes: Sequence[str],
    default: bool,
    notes: list[str],
) -> tuple[pd.Series, Target] | None:
    """Return a column of labels and its target; None where there is but one class."""
    values = table.frame[name]
    if separator is not None or kind == "multilabel" or not isinstance(values.dtype, pd.StringDtype):
        if isinstance(values.dtype, pd.StringDtype):
            parts = values.str.split(separator or "|", regex=False)
            values = parts.map(lambda names: [n.strip() for n in names if n.strip()], na_action="ignore")
        values = pd.Series([item if isinstance(item, list) else None for item in values], values.index, dtype=object)
        known = tuple(classes) or class_order(label for names in values.dropna() for label in names)
        _refuse_unknown(table, name, values.map(lambda names: bool(set(names or ()) - set(known))), known)
        return values, Target(column=column, kind="multilabel", classes=known, default=default)
    values = as_ids(values)
    known = tuple(classes) or class_order(values.dropna())
    _refuse_unknown(table, name, values.notna() & ~values.isin(known), known)
    if len(known) < 2:
        notes.append(f"{name} has one value only ({', '.join(known) or 'none'}) and is no target")
        return None
    if len(known) > 20 and len(known) > 0.5 * values.notna().sum():
        raise InputError.at(
            table.file, f"has {len(known):,} different values in {len(values):,} rows; classes recur", column=name
        )
    kind = kind or ("binary" if len(known) == 2 else "multiclass")
    return values, Target(column=column, kind=kind, classes=known, default=default)


def _refuse_unknown(table: Table, name: str, wrong: pd.Series, known: Sequence[str]) -> None:
    table.refuse(wrong.to_numpy(dtype=bool), name, f"label {{value}} is not one of {', '.join(known)}")


def _add_metadata(
    manifest: pd.DataFrame, table: Table, columns: _Columns, wanted: Sequence[str], notes: list[str]
) -> tuple[MetadataColumn, ...]:
    """Add the questionnaire: the columns that were asked for, or all that have a type and name nobody."""
    asked = [require_column(table, name) for name in wanted]
    entries: list[MetadataColumn] = []
    left_out: dict[str, list[str]] = {}
    for name in asked or [column for column in table.columns if column not in columns.used()]:
        values = table.frame[name]
        if not isinstance(values.dtype, pd.StringDtype):
            left_out.setdefault("lists", []).append(name)
            continue
        kind = infer_kind(values)
        column = name
        if name in RESERVED or name in manifest:
            if name in ("image_id", "path", "mask_path"):
                continue
            column = "anatomical_site" if name == "site" else f"{name}_recorded"
        if asked and kind == "text":
            manifest[column] = values
            entries.append(MetadataColumn(column=column, kind="categorical"))
            continue
        if not asked and names_a_person(name):
            left_out.setdefault("may identify a person", []).append(name)
        elif kind in ("text", "date", "empty"):
            reason = {"text": "free text or ids", "date": "dates", "empty": "blank throughout"}[kind]
            left_out.setdefault(reason, []).append(name)
        else:
            manifest[column] = convert(values, kind)
            entries.append(metadata_column(column, values, kind))
    _note_of_likely_blanks(manifest, entries, notes)
    for reason, names in left_out.items():
        notes.append(f"left out ({reason}): {', '.join(names)}; --metadata_columns chooses what is kept")
    return tuple(entries)


def _note_of_likely_blanks(manifest: pd.DataFrame, entries: Sequence[MetadataColumn], notes: list[str]) -> None:
    """Say which answers look like 'not known': only the user can tell."""
    columns_of: dict[str, list[str]] = {}
    for entry in entries:
        for level in entry.values or ():
            if level.casefold() in _MAYBE_MISSING:
                columns_of.setdefault(level, []).append(entry.column)
    for level, columns in columns_of.items():
        notes.append(
            f"{level!r} in {', '.join(columns)} is taken as an answer; --missing_values {level} makes it a blank"
        )
