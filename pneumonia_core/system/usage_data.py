"""Usage data: libraries that would send some to their makers do not."""

import sys
from typing import Final

# OpenVINO and NNCF import this package where it is there, and do without it.
_SENDER: Final = "openvino_telemetry"


def send_no_usage_data() -> None:
    """Keep OpenVINO from reporting to its makers that a model was converted, and how.

    To be called before it is imported. It asks nobody, and an archive's network may allow no such request.
    Its sender also forks this process from a thread. A child that is forked at the wrong moment hangs, and
    this process never ends, because it waits for the child.
    """
    sys.modules.setdefault(_SENDER, None)  # type: ignore[arg-type]
