"""Errors: one message each, caught where people already catch."""

import warnings

import pytest

from mltraq_ds import errors


def test_message_is_the_text():
    """The message is the text of the error, not quoted, and an attribute."""
    error = errors.ExperimentNotFoundError("There is no experiment 'x'.")
    assert str(error) == error.message == "There is no experiment 'x'."
    assert error.args == ("There is no experiment 'x'.",)
    assert str(errors.StorageError()) == ""


@pytest.mark.parametrize(
    ("kind", "bases"),
    [
        (errors.UsageError, (ValueError,)),
        (errors.UnknownOptionError, (errors.UsageError, LookupError)),
        (errors.UnsupportedTypeError, (errors.UsageError, TypeError)),
        (errors.MissingExtraError, (errors.UsageError, ImportError)),
        (errors.NotFoundError, (LookupError,)),
        (errors.DanglingReferenceError, (errors.DamageError, OSError)),
        (errors.CorruptBlobError, (errors.DamageError, OSError)),
        (errors.KeyExistsError, (errors.StorageError, FileExistsError)),
        (errors.KeyMissingError, (errors.StorageError, FileNotFoundError)),
    ],
)
def test_builtin_bases(kind, bases):
    """Each error is also what people already catch in its place."""
    for base in (*bases, errors.MltraqDSError):
        with pytest.raises(base, match="text"):
            raise kind("text")


def test_no_key_error():
    """No error is a KeyError, which prints its text quoted."""
    assert not [name for name in errors.__all__ if issubclass(getattr(errors, name), KeyError)]


def test_warnings_are_warnings():
    """Warnings can be filtered as UserWarning and raise nothing by themselves."""
    with pytest.warns(UserWarning, match="behind"):
        warnings.warn("behind", errors.IndexBehindWarning, stacklevel=1)
