"""A study end to end: classifiers are trained, reconstruction attacks run, every metric compared with who recognises what.

Needs the extra ``study``. ``attacker-metrics study run CONFIG.yaml`` is the command line. The stages:

- ``config_file``, ``config``: YAML -> checked settings, errors with line numbers;
- ``data``: image folder, torchvision data set or the package's photographs -> training images and attacked ones;
- ``classifiers``: trained with a client's defence, by Lightning, or loaded;
- ``steps``: the five steps as units of work; ``units``: each is done once and leaves a record; ``runner``: who does them;
- ``scoring``: reconstructions and the exact views that were attacked -> scores;
- ``annotating``, ``machines``: people's votes, or those of programs, which are never called people;
- ``reporting``: leakage, correlations, what it all rests on;
- ``files``: what the steps hand to each other.

A study's folder holds image data: originals, attacked views and reconstructions are its product.
"""

from attacker_metrics._extras import MissingExtraError, missing_extra

try:
    from attacker_metrics.study.config import Config
    from attacker_metrics.study.config_file import ConfigError, builtin_text, parse_config, read_config
    from attacker_metrics.study.runner import StepError, run_study
    from attacker_metrics.study.steps import STEPS
except ModuleNotFoundError as error:
    if isinstance(error, MissingExtraError) or (error.name or "").startswith("attacker_metrics"):
        raise
    raise missing_extra(f"attacker_metrics.study needs {error.name}", "study", error) from error

__all__ = ["STEPS", "Config", "ConfigError", "StepError", "builtin_text", "parse_config", "read_config", "run_study"]
