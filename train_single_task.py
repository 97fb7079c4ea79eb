"""Train one single-task network: UNet (segmentation), PilotNet (steering), YOLOv1 (box) or DenseDepth (depth).

python train_single_task.py --train-mode segmentation
"""

from errors import run_as_script
from tasks import TASKS
from training.build import Plan
from training.config import load_config
from training.runs import SingleTaskRun
from training.session import Session, parse_arguments


def main() -> None:
    args = parse_arguments(__doc__, "configs/single_task_conf.yaml", list(TASKS), default_mode=None)
    config = load_config(SingleTaskRun, args.config, args.set, args.gpu)
    session = Session.open(args, config)
    plan = Plan.make(session)
    print(plan.describe())
    if not args.dry_run:
        session.train(plan.trainer())


if __name__ == "__main__":
    run_as_script(main)
