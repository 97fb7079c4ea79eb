"""Train one shared encoder with four heads on samples that carry one label each; groups step at their own pace.

python train_asymmetric.py
"""

from errors import run_as_script
from training.arguments import parse_arguments
from training.build import Network, make_trainer, train
from training.config import load_config
from training.data import open_data
from training.runs import ASYMMETRIC, AsymmetricRun
from training.start import Start
from training.summary import describe


def main() -> None:
    args = parse_arguments(__doc__, "configs/asymmetric_conf.yaml", ASYMMETRIC, "there is only one")
    config = load_config(AsymmetricRun, args.config, args.set, args.gpu).of_mode(args.train_mode, args.config)
    with Start.open(args, config) as start:
        config, data = open_data(start, config)
        network = Network.make(start, config, data)
        print(describe(start, config, data, network))
        if not args.dry_run:
            train(make_trainer(start, config, data, network))


if __name__ == "__main__":
    run_as_script(main)
