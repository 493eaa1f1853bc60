"""Shape annotations: jaxtyping where it is installed (the tests check them), else plain tensors."""

from typing import TYPE_CHECKING, Annotated, Any

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from jaxtyping import Integer as Int  # signed or not: tokens on file are uint8
else:
    try:
        from jaxtyping import Bool, Float
        from jaxtyping import Integer as Int
    except ImportError:  # the core runs on machines with torch, numpy and safetensors only

        class _Plain:
            def __class_getitem__(cls, item: tuple[Any, str]) -> Any:
                return Annotated[item[0], item[1]]

        Bool = Float = Int = _Plain

__all__ = ["Bool", "Float", "Int"]
