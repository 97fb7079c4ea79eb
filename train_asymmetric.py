"""Train one shared encoder with four heads on samples that carry one label each; groups step at their own pace.

python train_asymmetric.py
"""

from errors import run_as_script
from training.build import Plan
from training.config import load_config
from training.runs import ASYMMETRIC, AsymmetricRun
from training.session import Session, parse_arguments


def main() -> None:
    args = parse_arguments(__doc__, "configs/asymmetric_conf.yaml", [ASYMMETRIC], default_mode=ASYMMETRIC)
    config = load_config(AsymmetricRun, args.config, args.set, args.gpu)
    session = Session.open(args, config)
    plan = Plan.make(session)
    print(plan.describe())
    if not args.dry_run:
        session.train(plan.trainer())


if __name__ == "__main__":
    run_as_script(main)
