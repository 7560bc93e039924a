"""What a run did when: records the spans that an executor reports and draws them.

Example:
    ``recorder = Recorder()``, ``HookExecutor(hooks, instrument=recorder)``, and after the run
    ``print(render_timeline(recorder.spans))``.
"""

from asynchooks.trace._recorder import Recorder
from asynchooks.trace._timeline import render_timeline

__all__ = ["Recorder", "render_timeline"]
