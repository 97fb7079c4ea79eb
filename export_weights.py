"""Writes a checkpoint's weights into a file as a bare state dict, which torch.load reads without this project.

python export_weights.py runs/A/best.pt weights.pth
"""

from errors import UserError, run_as_script  # first: from here on a signal ends it with one line

# isort: split
import argparse
from pathlib import Path

from datasets.files import check_writable, whole_file
from signals import ending_at_once


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="such as runs/A/best.pt; must be given")
    parser.add_argument("out", type=Path, help="the file to write, such as weights.pth; must be given")
    parser.add_argument(
        "--encoder",
        action="store_true",
        help="only what `pretrained: FILE` of a config takes: the encoder, under the names of its library",
    )
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    check_writable(args.out, [args.checkpoint])
    with ending_at_once():  # torch takes seconds to load, which --help and a mistake in the flags need not wait for
        import torch

        from training.restore import rebuild

    rebuilt = rebuild(args.checkpoint)
    module = rebuilt.config.pretrained_module(rebuilt.model) if args.encoder else rebuilt.model
    if module is None:
        raise UserError(f"--encoder: the network of {args.checkpoint} has no encoder that starts from a file")
    state = {name: value.contiguous() for name, value in module.state_dict().items()}
    with whole_file(args.out) as file:
        torch.save(state, file)
    print(f"{args.out}: {len(state)} tensors, {sum(value.numel() for value in state.values()):,} numbers")


if __name__ == "__main__":
    run_as_script(main)
