"""One text, two data modes: outputs are compared only on the data that wrote them."""

import os

import pytest
import torch
from xdist.scheduler import LoadScopeScheduling

from advlib import data

COMMITTED = "mnist"  # the data set behind the committed outputs
SPLIT = ("tests/test_colab.py",)  # long, independent tests: to whichever is free


@pytest.fixture(autouse=True)
def _same_networks() -> None:
    """What a test builds without a seed is the same, whatever ran before it."""
    torch.manual_seed(0)


def pytest_configure(config: pytest.Config) -> None:
    """Settle the data set once, for this process and every kernel it starts."""
    if "ADVLIB_DATA" in os.environ:  # kernels run in chapters/, pytest here
        os.environ["ADVLIB_DATA"] = os.path.abspath(os.environ["ADVLIB_DATA"])
    name = data.default().name
    os.environ["ADVLIB_DATASET"] = name
    os.environ.pop("ADVLIB_IMAGENET_FOLDER", None)  # not the committed outputs
    os.environ["ADVLIB_PLAY"] = "static"  # figures as they are stored
    if config.getoption("nbval", default=False) and name != COMMITTED:
        config.option.nbval, config.option.nbval_lax = False, True


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log) -> LoadScopeScheduling:
    """With several workers a file's tests stay on one, but for those of ``SPLIT``."""
    return ByFile(config, log)


class ByFile(LoadScopeScheduling):
    """Whole files to each worker: a notebook's cells share one kernel."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::")[0]
        return nodeid if file in SPLIT else file


def pytest_report_header(config: pytest.Config) -> str:
    """Say which data set the tests run on, and whether outputs are compared."""
    strict = config.getoption("nbval", default=False)
    lax = config.getoption("nbval_lax", default=False)
    how = "compared" if strict else "run, not compared" if lax else "not run"
    return f"data: {os.environ['ADVLIB_DATASET']}; chapter outputs: {how}"
