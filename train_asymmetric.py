"""Train one shared encoder with a head a task on frames with whatever labels they have; groups step at their own pace.

python train_asymmetric.py
python train_asymmetric.py --config configs/demo/asymmetric.yaml --name ours --set training.epochs=3 tasks.box=null
"""

from errors import run_as_script
from signals import ending_at_once
from training.arguments import parse_arguments


def main() -> None:
    args = parse_arguments(
        __doc__, "configs/asymmetric_conf.yaml", "asymmetric", "such as asymmetric, the default and the only one"
    )
    with ending_at_once():  # torch takes seconds to load, which --help and a mistake in the flags need not wait for
        from training.build import Network, make_trainer, train
        from training.config import load_config
        from training.data import open_data
        from training.runs import AsymmetricRun
        from training.start import Start
        from training.summary import describe

    config = load_config(AsymmetricRun, args.config, args.set, args.gpu).of_mode(args.train_mode, args.config)
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
