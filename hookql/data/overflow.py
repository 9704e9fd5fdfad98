"""What becomes of samples longer than a context, and what is refused about it."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

from hookql.errors import DataError, Diagnostic, UsageError, did_you_mean, listing

Overflow: TypeAlias = Literal["split", "truncate", "pack", "error"]


def check_overflow(tokenizer: Any, max_length: int | None, overflow: str) -> None:
    """Refuse an unknown overflow, and a length that holds no token.

    Raises:
        UsageError: saying which.
    """
    known = get_args(Overflow)
    if overflow not in known:
        raise UsageError(
            Diagnostic(
                "bad-overflow",
                f"there is no overflow `{overflow}`",
                help=did_you_mean(overflow, known),
                notes=(f"known: {listing(known)}",),
            )
        )
    if max_length is None:
        if overflow == "pack":
            raise UsageError(
                Diagnostic(
                    "needs-max-length",
                    "packing needs a length to fill, and the model has no limit of its own",
                    help="give --max-length",
                )
            )
        return
    count = getattr(tokenizer, "num_special_tokens_to_add", None)
    specials = int(count()) if callable(count) else 0
    if max_length < specials + 1:
        raise no_room(max_length, specials)


def no_room(max_length: int, specials: int) -> UsageError:
    """The error for a length that special tokens fill."""
    return UsageError(
        Diagnostic(
            "bad-max-length",
            f"a max length of {max_length} leaves no room for a token"
            + (f" beside {specials} special token{'s' * (specials > 1)}" if specials else ""),
            help=f"give --max-length {specials + 1} or more",
        )
    )


def too_long(said: str, length: int, most: int, choices: str | None) -> DataError:
    """The error for a text of more tokens than there may be; ``choices`` of --overflow may help."""
    help = f"choose what becomes of long samples with --overflow {choices}"
    return DataError(
        Diagnostic(
            "too-long",
            f"{said} has {length} tokens, more than the limit of {most}",
            help=help if choices else "shorten it, or ask for fewer new tokens",
        )
    )
