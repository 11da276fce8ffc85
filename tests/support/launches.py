"""How many operations a piece of code starts on a device."""

from torch.utils._python_dispatch import TorchDispatchMode


class Launches(TorchDispatchMode):
    """Counts operations that are more than a view: on a GPU each is launched, which is what small ones cost."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        self.count += not any(
            returned.alias_info and not returned.alias_info.is_write for returned in function._schema.returns
        )
        return function(*arguments, **(keywords or {}))
