"""python -m datasets.synthetic"""

from datasets.synthetic.generate import main
from errors import run_as_script

if __name__ == "__main__":
    run_as_script(main)
