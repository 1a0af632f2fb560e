"""The first event of Gradio's must not hold up the votes that share its event loop."""

import subprocess
import sys

import pytest

SCRIPT = """
import sys
from dmpo_app.ui.serving import preselect_matplotlib_backend
from gradio.utils import MatplotlibBackendMananger
preselect_matplotlib_backend()
with MatplotlibBackendMananger():
    pass
print("matplotlib.pyplot" in sys.modules)
"""


def test_an_event_does_not_import_pyplot_on_the_event_loop() -> None:
    pytest.importorskip("matplotlib")
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
