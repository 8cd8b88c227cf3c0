__version__ = "0.1.0"

from mixcut import layouts as _layouts  # adds the layouts on disk to `mixcut.data.load`  # noqa: E402
