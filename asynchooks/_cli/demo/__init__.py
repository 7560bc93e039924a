"""``asynchooks demo``: a small GPT is trained twice, saving to S3 inline and in the background, and compared.

The training itself serves the benchmarks too.
"""

from asynchooks._cli.demo._demo import DemoOptions, run_demo
from asynchooks._cli.demo._sizing import FEWEST_STEPS
from asynchooks._cli.demo._training import MODELS

__all__ = ["FEWEST_STEPS", "MODELS", "DemoOptions", "run_demo"]
