# Pyro's own types end at its base class, one of whose bases is a special form: what the packages inherit from is
# described here, all else is Any.
from typing import Any

def __getattr__(name: str) -> Any: ...
