"""Train one shared encoder with four heads on frames that carry all labels, or on one kind of label only.

python train_symmetric.py [--train-mode symmetric]
"""

from errors import run_as_script
from tasks import TASKS
from training.build import Plan
from training.config import load_config
from training.runs import SYMMETRIC, SymmetricRun
from training.session import Session, parse_arguments


def main() -> None:
    args = parse_arguments(__doc__, "configs/symmetric_conf.yaml", [SYMMETRIC, *TASKS], default_mode=SYMMETRIC)
    config = load_config(SymmetricRun, args.config, args.set, args.gpu)
    session = Session.open(args, config)
    plan = Plan.make(session)
    print(plan.describe())
    if not args.dry_run:
        session.train(plan.trainer())


if __name__ == "__main__":
    run_as_script(main)
