"""Train one shared encoder with a head a task on frames that carry all labels, or on one kind of label only.

python train_symmetric.py
python train_symmetric.py --config configs/demo/symmetric.yaml --train-mode depth --set training.epochs=3
"""

from errors import run_as_script
from signals import ending_at_once
from training.arguments import parse_arguments


def main() -> None:
    args = parse_arguments(
        __doc__,
        "configs/symmetric_conf.yaml",
        "symmetric",
        "default symmetric, all tasks together; or one of them, such as depth, with the same network",
    )
    with ending_at_once():  # torch takes seconds to load, which --help and a mistake in the flags need not wait for
        from training.build import Network, make_trainer, train
        from training.config import load_config
        from training.data import open_data
        from training.runs import SymmetricRun
        from training.start import Start
        from training.summary import describe

    config = load_config(SymmetricRun, args.config, args.set, args.gpu).of_mode(args.train_mode, args.config)
    if args.check_config:
        print(f"{args.config}: nothing is wrong with the configuration of {config.mode}")
        return
    with Start.open(args, config) as start:
        config, data = open_data(start, config)
        network = Network.make(start, config, data)
        print(describe(start, config, data, network))
        if not args.dry_run:
            train(make_trainer(start, config, data, network))


if __name__ == "__main__":
    run_as_script(main)
