"""The verb synth: draw, judge and write pairs until as many are kept as asked for.

    OUT/synth.json     what was asked          OUT/rules.json     the limits, fitted once
    OUT/synth.csv      every pair drawn        OUT/summary.json   what came out
    and the pairs as `semgan.synth.layouts` says

Work goes on in OUT.partial and takes its name when it is complete; the same command goes on after a stop, and with a
larger number extends OUT: the pairs that are there stay as they are. Files of a pair are written before its row, so
that whatever stands in the table is whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from semgan import artifacts, ranks
from semgan.data.parallel import thread_pool
from semgan.result_folder import ResultFolder, copy_whole, link_or_copy
from semgan.runtime.device import prepare_cpu
from semgan.synth.factory import BLOCK, Drawn, Factory, Restyled
from semgan.synth.layouts import LAYOUTS, Layout, Progress, coco_coder
from semgan.synth.plan import Plan
from semgan.synth.rules import KEPT, Rules, fit_rules
from semgan.synth.table import TABLE, Row, kept_pairs, number, read_table, whole_pairs, write_table

logger = logging.getLogger("semgan")

MARKER, RULES, SUMMARY = "synth.json", "rules.json", "summary.json"
MOST = 10**9
DERIVED = r"cache/.*|\.lock"  # what training keeps beside a dataset


def synth(
    model: Path | str,
    out: Path | str,
    plan: Plan,
    *,
    count: int,
    overwrite: bool = False,
    device: str = "auto",
    progress: Progress = lambda done, total, what: None,
) -> dict[str, Any]:
    """Write ``count`` kept pairs (and their other appearances) of a model; returns what summary.json holds.

    Raises ValueError for a model that cannot draw, values out of range, rules that keep nothing, or fewer pairs than
    ``out`` holds already; FileExistsError where ``out`` has other content; OSError where the disk is full: then the
    same call goes on.
    """
    if not 1 <= count <= MOST:
        raise ValueError(f"Ask for 1 to {MOST} pairs; got {count}.")
    ranks.refuse_several("semgan synth")
    prepare_cpu()
    factory = Factory.load(model, seed=plan.seed, truncation=plan.truncation, device=device)
    plan.check(factory.model.labels.names, factory.layers)
    if plan.format == "coco":
        coco_coder()
    request = {"format": 1, "model": _identity(model), **asdict(plan)}
    folder = ResultFolder(Path(out), MARKER, request, DERIVED, grows=True)
    if folder.is_finished() and not overwrite:
        held = kept_pairs(read_table(folder.out / TABLE))
        if held > count:
            raise ValueError(
                f"{out} holds {held} pairs of this request already, and {count} are asked for: take its first ones "
                f"({TABLE} is in order), or make it anew with --overwrite."
            )
        if held == count and not _lost(folder.out, LAYOUTS[plan.format], _files_per_image(factory)):
            logger.warning("%s already holds these pairs; nothing to do.", out)
            return artifacts.read_json(folder.out / SUMMARY)
    with _alone_in(folder.partial) if folder.partial.is_dir() else contextlib.nullcontext():
        folder.begin(overwrite=overwrite or folder.is_finished())  # which may take the place of another request's work
    with _alone_in(folder.partial):
        folder.reopen()
        if folder.is_finished() and not overwrite and not (folder.partial / TABLE).is_file():
            _take_over(folder, LAYOUTS[plan.format])
        try:
            work = _Work(factory, plan, folder.partial)
            work.go_on(count, progress)
        except BaseException:
            if not read_table(folder.partial / TABLE):
                folder.discard()
            raise
        summary = work.complete(Path(out).name, progress)
        folder.finish()
    return summary


def _files_per_image(factory: Factory) -> int:
    """A grey or colour image is one file; other channels are one file each."""
    channels = factory.model.settings.preprocessing.channels
    return 1 if channels in (1, 3) else channels


def _lost(out: Path, layout: Layout, files_per_image: int) -> bool:
    """Whether files of pairs that the table names are gone or empty."""
    if not all((out / name).is_dir() for name in (layout.images, layout.masks)):
        return True
    named = {row.member.stem for row in read_table(out / TABLE) if row.kept}
    return not named <= layout.stems_in(out, files_per_image)


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Two at once would write the same numbers, and take each other's files for left-overs."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(artifacts.locked_folder(folder, wait=False))
        except BlockingIOError:
            raise ValueError(
                f"Another process is at work in {folder}: wait until it has ended, or give another folder with -o."
            ) from None
        yield


def _identity(model: Path | str) -> str:
    """A short name for the generator and critic, wherever they lie."""
    known = hashlib.sha256()
    for name in ("generator", "image_critic"):
        path = artifacts.find_model(Path(model)) / f"{name}.safetensors"
        if path.is_file():
            known.update(name.encode() + path.read_bytes())
    return known.hexdigest()[:16]


def _take_over(folder: ResultFolder, layout: Layout) -> None:
    """Begin from the finished pairs of a smaller request: links to them where the disk knows links, else copies.

    The table comes last: where it lies, everything is there.
    """
    for name in folder.results():
        if name.startswith((f"{layout.images}/", f"{layout.masks}/")) and (folder.out / name).is_file():
            (folder.partial / name).parent.mkdir(exist_ok=True)
            link_or_copy(folder.out / name, folder.partial / name)
    for name in (RULES, TABLE):
        copy_whole(folder.out / name, folder.partial / name)


class _Work:
    """What lies in OUT.partial, and how it grows."""

    def __init__(self, factory: Factory, plan: Plan, folder: Path) -> None:
        self.factory, self.plan, self.folder = factory, plan, folder
        self.layout = LAYOUTS[plan.format]
        self.rules = self._rules()
        self.factory.deviation = self.rules.deviation
        if factory.critic is None and plan.keep_real < 1:
            logger.warning("The model folder keeps no image critic: pairs are filtered by label entropy alone.")
        self.rows: list[Row] = []

    def _rules(self) -> Rules:
        """As fitted at the first start: a longer run on another machine judges by the same limits."""
        path = self.folder / RULES
        if path.is_file():
            return Rules.from_json(artifacts.read_json(path))
        rules = fit_rules(self.factory, self.plan)
        artifacts.write_json(path, rules.as_json())
        return rules

    def go_on(self, count: int, progress: Progress) -> None:
        """Draw until ``count`` pairs are kept, from where the table ends."""
        classes = self.rules.classes
        self.layout.begin(self.folder)
        there = self.layout.stems_in(self.folder, _files_per_image(self.factory))
        read = itertools.takewhile(
            lambda row: not row.kept or row.member.stem in there, read_table(self.folder / TABLE)
        )
        self.rows = whole_pairs(list(read), self.plan.restyle, count)
        write_table(self.folder / TABLE, classes, self.rows)
        self.layout.forget_others(self.folder, {row.member.stem for row in self.rows if row.kept})
        done = kept_pairs(self.rows)
        progress(done, count, "pairs")
        with open(self.folder / TABLE, "a", encoding="utf-8") as table, thread_pool() as pool:
            while done < count:
                following = self.rows[-1].index + 1 if self.rows else 0
                found = self._block(following, count - done)
                jobs = [(row.member.stem, image, label_map) for row, image, label_map in found if row.kept]
                list(pool.map(lambda job: self.layout.write(self.folder, *job), jobs))
                table.write("".join(row.line() for row, _, _ in found))
                table.flush()
                self.rows += [row for row, _, _ in found]
                done = kept_pairs(self.rows)
                progress(done, count, "pairs")

    def _block(self, following: int, missing: int) -> list[tuple[Row, Any, Any]]:
        """Rows with images and label maps, from a number to its block's end or to the last pair that is missing."""
        drawn = self.factory.draw(following // BLOCK * BLOCK)
        reasons = self.rules.judge(drawn, self.plan.seed)
        kept = [row for row, reason in enumerate(reasons) if reason == KEPT]
        styles = self._styles(drawn, kept) if kept else []
        found: list[tuple[Row, Any, Any]] = []
        for row, reason in enumerate(reasons):
            if drawn.numbers[row] < following:
                continue
            own = self._row(drawn, row, 0, reason, (*_measured(drawn, row), None))
            found.append((own, drawn.images[row], drawn.label_maps[row]))
            if reason != KEPT:
                continue
            place = kept.index(row)
            for style, (other, verdicts) in enumerate(styles, start=1):
                values = (*_measured(other, place), other.moved[place])
                entry = self._row(drawn, row, style, verdicts[place], values)
                found.append((entry, other.images[place], drawn.label_maps[row]))
            missing -= 1
            if not missing:
                break
        return found

    def _styles(self, drawn: Drawn, kept: Sequence[int]) -> list[tuple[Restyled, list[str]]]:
        layer = self.rules.style_layer
        if layer is None:
            return []
        all_styles = [self.factory.restyle(drawn, kept, style, layer) for style in range(1, self.plan.restyle + 1)]
        return [(each, self.rules.judge_styles(each)) for each in all_styles]

    def _row(
        self, drawn: Drawn, row: int, style: int, reason: str, values: tuple[float, float | None, float | None]
    ) -> Row:
        """values: entropy, critic's score, movement of the mask"""
        entropy, critic, moved = (number(value) for value in values)
        shares = tuple(number(share) for share in drawn.shares[row])
        return Row(drawn.numbers[row], self.plan.seed, style, entropy, critic, moved, reason == KEPT, reason, shares)

    def complete(self, name: str, progress: Progress) -> dict[str, Any]:
        """Write what describes the whole, and the summary; returns that."""
        members = [row.member for row in self.rows if row.kept]
        model = self.factory.model
        self.layout.complete(self.folder, name, model.labels, model.settings.preprocessing.channels, members, progress)
        summary = {"pairs": kept_pairs(self.rows), "images": len(members)} | self._account()
        artifacts.write_json(self.folder / SUMMARY, summary)
        return summary

    def _account(self) -> dict[str, Any]:
        pairs = [row for row in self.rows if not row.style]
        styles = [row for row in self.rows if row.style]
        kept = [row for row in pairs if row.kept]
        rule = self.factory.model.settings.preprocessing
        return {
            "drawn": len(pairs),
            "dropped": _dropped(pairs),
            "styles_drawn": len(styles),
            "styles_dropped": _dropped(styles),
            "critic": "image_critic.safetensors" if self.factory.critic is not None else None,
            "mean_share": {
                name: round(sum(float(row.shares[place]) for row in kept) / len(kept), 6)
                for place, name in enumerate(self.rules.classes)
            },
            "shown_in": {
                name: round(sum(float(row.shares[place]) > 0 for row in kept) / len(kept), 6)
                for place, name in enumerate(self.rules.classes)
            },
            "preprocessing": rule.model_dump(mode="json"),
            "rules": self.rules.as_json(),
        }


def _measured(block: Drawn | Restyled, row: int) -> tuple[float, float | None]:
    return block.entropy[row], None if block.critic is None else block.critic[row]


def _dropped(rows: Iterable[Row]) -> dict[str, int]:
    return dict(Counter(row.reason for row in rows if not row.kept))
