"""Train one single-task network: UNet (segmentation), PilotNet (steering), YOLOv1 (box) or DenseDepth (depth).

python train_single_task.py --train-mode segmentation --config configs/demo/single_task.yaml
python train_single_task.py --train-mode depth --name deep --set tasks.depth.network.pretrained=none
"""

from errors import run_as_script
from signals import ending_at_once
from training.arguments import parse_arguments


def main() -> None:
    args = parse_arguments(__doc__, "configs/single_task_conf.yaml", None, "the task, such as depth; must be given")
    with ending_at_once():  # torch takes seconds to load, which --help and a mistake in the flags need not wait for
        from training.build import Network, make_trainer, train
        from training.config import load_config
        from training.data import open_data
        from training.runs import SingleTaskRun
        from training.start import Start
        from training.summary import describe

    config = load_config(SingleTaskRun, args.config, args.set, args.gpu).of_mode(args.train_mode, args.config)
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
