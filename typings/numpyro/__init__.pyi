# NumPyro ships no types: what the packages inherit from is described here, all else is Any.
from typing import Any

def __getattr__(name: str) -> Any: ...
