"""What a run trains on and validates with, from the data sets and the config."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from datasets.frames import Frame
from datasets.labels import Labelled, hash_of, keep_fractions, keep_one, keep_random
from datasets.layout import fits_folder
from datasets.roots import Roots
from datasets.samples import LabelledFrames, Sample
from datasets.sampling import Sampling
from datasets.splits import Split
from errors import UserError
from tasks.base import Task
from training import checkpoint, distributed
from training.binding import Run, agreed_labels, labelled_samples, open_roots, resolved
from training.data_config import DRAWN
from training.evaluation import Results
from training.fits import Fits, evaluate_constant, labels_of
from training.runs import RunConfig
from training.splitting import open_split
from training.start import Start


@dataclass(frozen=True)
class Data:
    """What the loop passes and in which portions."""

    train: LabelledFrames
    val: LabelledFrames
    block_size: int
    micro_batch_size: int
    sampling: Sampling
    workers: int
    bound: Mapping[str, Sequence[str]] = field(default_factory=dict)  # task -> the data sets that its labels are from

    def lists(self) -> dict[str, str]:
        """The data sets, and of each split a hash of its samples in their order: what a resumed run must find again."""
        names = "+".join(sorted({sample.frame.dataset for sample in self.train.samples}))
        return {"data_set": names, "train": hash_of(self.train.samples), "val": hash_of(self.val.samples)}

    def samples_per_task(self) -> dict[str, int]:
        """How many training samples carry each task's label."""
        counts = Counter(task for sample in self.train.samples for task in sample.tasks)
        return {name: counts[name] for name in self.train.tasks}


@dataclass(frozen=True, kw_only=True)
class RunData(Data):
    """The data of a run, with what they were made from."""

    roots: Roots
    split: Split
    tasks: dict[str, Task]  # fitted to their training labels
    by_kind: Labelled  # kind -> the training frames that keep its label
    labelled: Labelled  # task -> the same, of the data sets that it is bound to
    fits: Fits

    @classmethod
    def make(
        cls, start: Start, config: RunConfig, roots: Roots, bound: Mapping[str, list[str]], split: Split
    ) -> "RunData":
        """UserError where labels, config and split do not fit together."""
        tasks = config.make_tasks(agreed_labels(config, bound, roots))
        by_kind = distributed.from_main(lambda: kept_labels(config, roots, split))
        labelled = of_tasks(config, bound, by_kind)
        train, val = config.make_samples(labelled), labelled_samples(roots, bound, split.val, tasks)
        check_samples(config, split, train, val)
        if split.val:
            distributed.from_main(lambda: check_scorable(tasks, roots, train, val))
        fits = Fits(roots, fits_folder(start.args.runs_root))
        prepare_tasks(start, tasks, labelled, fits)
        portions = config.portions()
        return cls(
            train=LabelledFrames(roots, tasks, train),
            val=LabelledFrames(roots, tasks, val),
            block_size=portions.block_size,
            micro_batch_size=portions.micro_batch_size,
            sampling=portions.sampling,
            workers=config.data.workers,
            bound=bound,
            roots=roots,
            split=split,
            tasks=tasks,
            by_kind=by_kind,
            labelled=labelled,
            fits=fits,
        )

    def constant_results(self) -> Results:
        """The validation errors of the constant baselines, for the tasks whose metric is an error."""
        if not self.val.samples:
            return {}
        labelled = {name: task for name, task in self.tasks.items() if self.labelled[name]}
        return distributed.shared_out(
            {
                name: partial(evaluate_constant, task, self.roots, self.labelled[name], self.val.samples, self.fits)
                for name, task in labelled.items()
                if not task.deciding().higher_is_better
            }
        )


def open_data(start: Start, config: Run) -> tuple[Run, RunData]:
    """The config as the data sets resolve it, and what the run trains on and validates with.

    UserError where data sets, config, split and checkpoint do not fit together.
    """
    roots = open_roots(start, config)
    split = open_split(start, config.data.split, roots)
    config, bound = resolved(config, roots, start)
    return config, RunData.make(start, config, roots, bound, split)


class HasLabels(Protocol):
    """Knows which frames have a label of a kind."""

    def kinds(self) -> list[str]: ...

    def labelled(self, kind: str) -> list[Frame]: ...


def kept_labels(config: RunConfig, roots: HasLabels, split: Split) -> Labelled:
    """Kind -> the training frames that keep its label under the regime: the same frames whatever the mode.

    Of the kinds of the run's tasks, and of the others that the regime draws from.
    """
    regime, train = config.data.labels, set(split.train)
    kinds = dict.fromkeys([*map(config.kind_of, config.task_names()), *(regime.kinds or ())])
    labelled = {kind: [frame for frame in roots.labelled(kind) if frame in train] for kind in kinds}
    if regime.regime in DRAWN:
        assert regime.kinds is not None  # binding.resolved has settled them
        keep = keep_one if regime.regime == "one" else keep_random
        return keep(labelled, regime.kinds, regime.proportions, regime.seed)
    if regime.regime == "fractions":
        return keep_fractions(labelled, regime.fractions, regime.seed)
    return labelled


def of_tasks(config: RunConfig, bound: Mapping[str, Sequence[str]], by_kind: Labelled) -> dict[str, list[Frame]]:
    """Task -> frames, those of the data sets that the task is bound to; from kind -> frames."""
    return {
        name: [frame for frame in by_kind[config.kind_of(name)] if frame.dataset in names]
        for name, names in bound.items()
    }


def prepare_tasks(start: Start, tasks: Mapping[str, Task], labelled: Labelled, fits: Fits) -> None:
    """Let the tasks learn from the training labels what they need, or restore what they had learnt."""
    if start.checkpoint is not None:
        with checkpoint.fitting("--resume: the checkpoint"):
            for name, task in tasks.items():
                task.load_state(start.checkpoint["tasks"][name])
        return
    fitted = distributed.shared_out({name: partial(fits.state, task, labelled[name]) for name, task in tasks.items()})
    for name, task in tasks.items():
        task.load_state(fitted[name])


def check_samples(config: RunConfig, split: Split, train: list[Sample], val: list[Sample]) -> None:
    """UserError where nothing would be trained or validated."""
    for name, samples in (("train", train), ("val", val)):
        if not samples and (name == "train" or split.of(name)):  # a run may have no validation frames
            raise UserError(
                f"none of the {len(split.of(name))} {name} frames has the labels that {config.mode} needs: "
                f"{', '.join(config.task_names())}"
            )
    sampling = config.portions().sampling
    if not any(isinstance(sampling, str) or sampling.get(task) for sample in train for task in sample.tasks):
        raise UserError(f"sampling: none of the training frames has a label of {', '.join(sampling)}")


def check_scorable(tasks: Mapping[str, Task], roots: Roots, train: list[Sample], val: list[Sample]) -> None:
    """UserError where a trained task's deciding metric can't be a number: no validation label says anything."""
    for name in {name for sample in train for name in sample.tasks}:
        task = tasks[name]
        if not any(map(task.scorable, labels_of(task, roots, [s.frame for s in val if name in s.tasks]))):
            raise UserError(
                f"{name}: {task.deciding().title} over the {len(val)} validation frames would not be a number: "
                f"{task.unscorable}; use more frames, or another data.split"
            )
