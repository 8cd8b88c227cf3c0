__version__ = "0.1.0"


def __getattr__(name):
    "The transforms, as in `from mixcut import MixCut`."
    if name in ("MixCut", "Mixup", "CutMix", "Cutout", "RandomErasing", "HideAndSeek"):
        from . import augment
        return getattr(augment, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
