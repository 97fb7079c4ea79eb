"""Train one single-task network: UNet (segmentation), PilotNet (steering), YOLOv1 (box) or DenseDepth (depth).

python train_single_task.py --train-mode segmentation
"""

from datasets.transforms import Augmentation
from errors import run_as_script
from tasks import TASKS
from training.config import SingleTaskRun, load_config, section_of
from training.evaluation import Precision
from training.loop import Data, Trainer
from training.session import Session, check_size, describe, parse_arguments
from training.updates import Group, LossScale, Updates


def main() -> None:
    args = parse_arguments(__doc__, "configs/single_task_conf.yaml", list(TASKS), default_mode=None)
    config = load_config(SingleTaskRun, args.config, args.set)
    mode = args.train_mode
    section = section_of(config, mode, args.config)
    session = Session.open(args, config, config.data, config.seed)

    tasks = config.make_tasks(mode)
    train_samples, val_samples = session.samples(tasks, "train"), session.samples(tasks, "val")
    data = Data(
        train=session.dataset(tasks, train_samples),
        val=session.dataset(tasks, val_samples),
        block_size=section.batch_size,
        micro_batch_size=section.micro_batch_size,
        workers=config.data.workers,
    )
    session.prepare_tasks(tasks, train_samples)
    model = config.make_model(mode, tasks)
    check_size(config.data.size, model.network, args.config)
    if session.checkpoint is None:
        tasks[mode].load_pretrained(model.network)
    model.to(session.device)

    training = config.training
    precision = Precision(training.precision, session.device)
    updates = Updates(
        [Group(mode, model.parameters(), section, training.clip)],
        planned_samples=training.epochs * len(train_samples),
        warmup=training.warmup,
        loss_scale=LossScale(enabled=precision.name == "fp16"),
    )
    print(describe(session, data, model, updates))
    if args.dry_run:
        return
    tracker, constants = session.start("single_task")
    trainer = Trainer(
        model=model,
        tasks=tasks,
        groups_of={mode: (mode,)},
        updates=updates,
        loss_weights={mode: 1.0},
        augmentation=Augmentation(**config.augmentation.model_dump(), seed=config.seed),
        score=lambda results: tasks[mode].score(results[mode]),
        data=data,
        config=training,
        precision=precision,
        seed=config.seed,
        run=session.run,
        tracker=tracker,
        constants=constants,
    )
    session.train(trainer)


if __name__ == "__main__":
    run_as_script(main)
